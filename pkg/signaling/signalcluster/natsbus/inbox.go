package natsbus

import "github.com/crmesh/crmesh/pkg/signaling/signalcluster"

// messageCost is what a message takes beside its subject and data, about.
const messageCost = 128

// inbox is the messages that wait to be taken, in order, bounded by inboxLength and inboxBytes. It does no I/O.
type inbox struct {
	waiting []signalcluster.BusMessage
	size    int // bytes
}

func sizeOf(m signalcluster.BusMessage) int { return messageCost + len(m.Subject) + len(m.Data) }

// add is false if the message has no place, and is lost.
func (b *inbox) add(m signalcluster.BusMessage) bool {
	if len(b.waiting) >= inboxLength || b.size+sizeOf(m) > inboxBytes {
		return false
	}
	b.waiting = append(b.waiting, m)
	b.size += sizeOf(m)
	return true
}

// first is the message that is to be taken next; ok is false if there is none.
func (b *inbox) first() (m signalcluster.BusMessage, ok bool) {
	if len(b.waiting) == 0 {
		return signalcluster.BusMessage{}, false
	}
	return b.waiting[0], true
}

// drop removes the first one.
func (b *inbox) drop() {
	b.size -= sizeOf(b.waiting[0])
	b.waiting[0] = signalcluster.BusMessage{} // its memory need not wait for the slice's
	if b.waiting = b.waiting[1:]; len(b.waiting) == 0 {
		b.waiting = nil
	}
}

// roomy tells whether there is place for many more.
func (b *inbox) roomy() bool { return len(b.waiting) <= inboxLength/2 && b.size <= inboxBytes/2 }
