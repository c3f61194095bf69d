package mesh

import (
	"testing"

	"github.com/pion/webrtc/v4"
)

// TestDTLSFailed: a connection that fails while ICE has not is one whose encryption failed, whatever state ICE is in.
func TestDTLSFailed(t *testing.T) {
	for _, ice := range []webrtc.ICEConnectionState{
		webrtc.ICEConnectionStateChecking, webrtc.ICEConnectionStateConnected, webrtc.ICEConnectionStateCompleted, webrtc.ICEConnectionStateDisconnected,
	} {
		if !dtlsFailed(webrtc.PeerConnectionStateFailed, ice) {
			t.Errorf("a failure while ICE is %s is not called one of DTLS", ice)
		}
		if dtlsFailed(webrtc.PeerConnectionStateConnecting, ice) {
			t.Errorf("a connection that is being made while ICE is %s counts as failed", ice)
		}
	}
	if dtlsFailed(webrtc.PeerConnectionStateFailed, webrtc.ICEConnectionStateFailed) {
		t.Error("a failure of ICE is called one of DTLS")
	}
}
