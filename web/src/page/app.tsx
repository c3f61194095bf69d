import { enterRoom, useRoomFragment } from "./location.ts";
import { type Opener, Room } from "./room.tsx";
import { Welcome } from "./welcome.tsx";

/** The whole page: the way in, or the room that the address names. */
export function App({ open }: { open: Opener }) {
  const fragment = useRoomFragment();
  if (fragment === "") return <Welcome enter={enterRoom} />;
  return <Room key={fragment} link={`#${fragment}`} open={open} />;
}
