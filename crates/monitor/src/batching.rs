//! Who serves a queue: the CPU that notifies, or the devices' loop.
//!
//! The CPU is sooner there: nobody has to wake up. But while it serves one request its guest makes no other, so that a
//! guest with many to make leaves its guest code for each of them. The loop serves at once all that have been made
//! until it gets there, and asks to be notified only when there is nothing left; that is worth waking it if there are
//! several. How many there are depends on the guest, and on how busy the host is. It is seen by trying: now and then a
//! request is left to the loop, and if it finds enough others there, it keeps the queue until it finds few.

/// One notification in so many is left to the loop, to see.
const TRIAL: u8 = 32;
/// So many requests at once are worth waking the loop.
const WORTH: u16 = 4;
/// So many turns of the loop in a row with fewer, and the queue goes back to the CPU.
const FEW: u8 = 4;

/// Of one queue.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Batching {
    /// The loop has it.
    by_loop: bool,
    /// Notifications since the last trial, or turns of the loop with few requests.
    count: u8,
}

impl Batching {
    /// Whether what the driver notifies of is to be left to the loop.
    pub(crate) fn leave(&mut self) -> bool {
        if !self.by_loop {
            self.count += 1;
            if self.count < TRIAL {
                return false;
            }
            self.count = 0;
        }
        true
    }

    /// The loop has served so many requests at once, of those left to it.
    pub(crate) fn served(&mut self, requests: u16) {
        if requests >= WORTH {
            *self = Self {
                by_loop: true,
                count: 0,
            };
        } else if self.by_loop {
            self.count += 1;
            if self.count == FEW {
                *self = Self::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_makes_few_requests_at_a_time_is_served_by_its_cpu() {
        let mut batching = Batching::default();
        let mut left = 0;
        for _ in 0..u32::from(TRIAL) * 10 {
            if batching.leave() {
                left += 1;
                batching.served(WORTH - 1);
            }
        }
        assert_eq!(left, 10);
    }

    #[test]
    fn a_guest_that_makes_many_is_served_by_the_loop_until_it_makes_few() {
        let mut batching = Batching::default();
        while !batching.leave() {}
        batching.served(7);
        for requests in [1, 2, 3, 4, 1, 3, 1] {
            assert!(batching.leave());
            batching.served(requests);
        }
        assert!(batching.leave());
        batching.served(1);
        assert!(!batching.leave());
    }
}
