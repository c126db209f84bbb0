use super::*;
use proptest::prelude::*;

#[test]
fn no_more_than_there_is_room_for_is_taken_and_counts_wrap() {
    let mut inbound = Inbound::new(100);
    inbound.received = u32::MAX - 9;
    inbound.forwarded = u32::MAX - 9;
    assert!(inbound.receive(60) && inbound.receive(40));
    assert!(!inbound.receive(1) && inbound.receive(0));
    inbound.forward(30);
    assert!(!inbound.receive(31) && inbound.receive(30));
    assert_eq!(inbound.tell(), (100, 20));
    assert!(!inbound.receive(u32::MAX));
}

#[test]
fn a_guest_hears_of_room_before_it_can_be_waiting_for_it() {
    for (room, offered, told_at) in [
        (1000, 5000, 500),
        (1000, 1000, 500),
        (1000, 10, 5),
        (1000, 0, 500),
        (1000, 1, 1),
    ] {
        let mut inbound = Inbound::new(room);
        assert!(!inbound.owes_update(offered));
        assert!(inbound.receive(room));
        inbound.forward(told_at - 1);
        assert!(!inbound.owes_update(offered), "{room} {offered}");
        inbound.forward(1);
        assert!(inbound.owes_update(offered), "{room} {offered}");
        inbound.tell();
        assert!(!inbound.owes_update(offered), "{room} {offered}");
    }
}

#[test]
fn a_guest_without_room_gets_nothing_and_one_that_lies_neither() {
    let mut outbound = Outbound::default();
    assert_eq!(outbound.allowance(), 0);
    outbound.update(10_000, 0);
    assert_eq!(outbound.allowance(), 10_000);
    outbound.send(6_000);
    // More than was sent: as if nothing had been taken.
    outbound.update(10_000, 6_001);
    assert_eq!(outbound.allowance(), 0);
    outbound.update(10_000, u32::MAX);
    assert_eq!(outbound.allowance(), 0, "it went back");
    // Less room than is in use.
    outbound.update(5_000, 0);
    assert_eq!(outbound.allowance(), 0);
    outbound.update(u32::MAX, 6_000);
    assert_eq!(outbound.allowance(), u32::MAX);
}

#[test]
fn packets_are_not_made_small_by_what_little_room_is_left() {
    let mut outbound = Outbound::default();
    outbound.update(100_000, 0);
    outbound.send(100_000 - WORTH + 1);
    assert_eq!(outbound.allowance(), 0);
    outbound.update(100_000, 1);
    assert_eq!(outbound.allowance(), WORTH);
    // A guest with little room altogether gets what there is.
    let mut outbound = Outbound::default();
    outbound.update(2000, 0);
    outbound.send(1000);
    assert_eq!(outbound.allowance(), 1000);
    outbound.send(1);
    assert_eq!(outbound.allowance(), 0);
}

/// The part of Linux that resets a connection: `rx_queue` and its limits.
#[derive(Default)]
struct Guest {
    room: u32,
    queue: std::collections::VecDeque<u32>,
    taken: u32,
}

impl Guest {
    fn take(&mut self, packets: usize) {
        let count = packets.min(self.queue.len());
        self.taken = self.taken.wrapping_add(self.queue.drain(..count).sum());
    }

    fn add(&mut self, len: u32) {
        let bytes = self.queue.iter().sum::<u32>() + len;
        assert!(bytes <= self.room, "more than there is room for");
        let cost = (self.queue.len() + 1) * 576;
        assert!(self.room < 1152 || cost <= self.room as usize, "{cost}");
        self.queue.push_back(len);
    }
}

proptest! {
    /// Whatever is sent, the guest is neither overrun by bytes nor by packets; and once it has taken all and said so,
    /// there is something that may be sent.
    #[test]
    fn a_guest_is_not_overrun(
        room in prop_oneof![Just(256 << 10), Just(8 << 10), 1_u32..100_000],
        steps in prop::collection::vec((any::<bool>(), 0_usize..300, 1_u32..3000, any::<bool>()), 1..300),
    ) {
        let mut outbound = Outbound { sent: u32::MAX - 5000, forwarded: u32::MAX - 5000, mark: u32::MAX - 5000, ..Outbound::default() };
        let mut guest = Guest { room, taken: u32::MAX - 5000, ..Guest::default() };
        outbound.update(room, guest.taken);
        for (take, count, len, tell) in steps {
            if take {
                guest.take(count);
            } else {
                for _ in 0..count {
                    let len = len.min(outbound.allowance());
                    if len == 0 {
                        break;
                    }
                    outbound.send(len);
                    guest.add(len);
                }
            }
            if tell {
                outbound.update(room, guest.taken);
            }
        }
        guest.take(usize::MAX);
        outbound.update(room, guest.taken);
        prop_assert_eq!(outbound.allowance(), room);
    }

    /// A guest that keeps to what it is told is never refused, and is never left waiting for ever.
    #[test]
    fn a_guest_that_keeps_to_its_credit_is_not_refused(
        room in 1_u32..100_000,
        offered in 0_u32..100_000,
        steps in prop::collection::vec((any::<bool>(), 1_u32..70_000), 1..300),
    ) {
        let mut inbound = Inbound::new(room);
        let (mut sent, mut told, mut held) = (0_u32, 0_u32, 0_u32);
        let used = if offered == 0 { room } else { room.min(offered) };
        for (send, count) in steps {
            if send {
                let len = count.min(used - sent.wrapping_sub(told));
                prop_assert!(inbound.receive(len));
                sent = sent.wrapping_add(len);
                held += len;
            } else {
                let count = count.min(held);
                inbound.forward(count);
                held -= count;
            }
            if inbound.owes_update(offered) {
                told = inbound.tell().1;
            }
            prop_assert!(held > 0 || sent.wrapping_sub(told) < used, "it waits for nothing");
        }
    }
}
