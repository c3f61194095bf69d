// The page of a room over a FakeClient, which the test reaches as `window.fake`; with ?opening, of a room that never opens.

import { createRoot } from "react-dom/client";
import { Room } from "../../src/page/room.tsx";
import { RoomPage } from "../../src/page/room-page.tsx";
import { CrmeshProvider } from "../../src/react/index.ts";
import { FakeClient } from "./fake.ts";
import "../../src/page/style.css";

declare global {
  interface Window {
    fake: FakeClient;
  }
}

window.fake = await FakeClient.open();
const root = document.createElement("div");
document.body.append(root);
const never = () => new Promise<never>(() => {});
createRoot(root).render(
  location.search === "?opening" ? (
    <Room link="#room" open={never} />
  ) : (
    <CrmeshProvider client={window.fake}>
      <RoomPage
        links={{ write: "https://example.test/#room.write", read: "https://example.test/#room.read.key" }}
      />
    </CrmeshProvider>
  ),
);
