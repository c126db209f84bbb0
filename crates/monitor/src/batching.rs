//! Who serves a queue: the CPU that notifies, or the devices' loop.
//!
//! The CPU is sooner there: nobody has to wake up. But while it serves one request its guest makes no other, so that a
//! guest with many to make leaves its guest code for each of them. The loop serves at once all that have been made
//! until it gets there, and asks to be notified only when there is nothing left; that is worth waking it if there are
//! several, or if they are long. How much there is depends on the guest, and on how busy the host is. It is seen by trying:
//! now and then a request is left to the loop, and if it finds enough work there, as the device has said, it keeps the queue
//! until it finds little.

use goldcrest_virtio::Work;

/// One notification in so many is left to the loop, to see.
const TRIAL: u8 = 32;
/// So many turns of the loop in a row with too little work, and the queue goes back to the CPU.
const FEW: u8 = 4;

/// Of one queue.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Batching {
    /// The loop has it.
    by_loop: bool,
    /// Notifications since the last trial, or turns of the loop with too little work.
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

    /// The loop has found so much work at once in what was left to it, of which `worth` is worth to wake it.
    pub(crate) fn served(&mut self, work: Work, worth: Work) {
        if work.chains >= worth.chains || work.bytes >= worth.bytes {
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

    const WORTH: Work = Work {
        chains: 4,
        bytes: 1000,
    };

    fn few(chains: u16) -> Work {
        Work { chains, bytes: 999 }
    }

    #[test]
    fn a_guest_that_makes_few_requests_at_a_time_is_served_by_its_cpu() {
        let mut batching = Batching::default();
        let mut left = 0;
        for _ in 0..u32::from(TRIAL) * 10 {
            if batching.leave() {
                left += 1;
                batching.served(few(3), WORTH);
            }
        }
        assert_eq!(left, 10);
    }

    #[test]
    fn a_guest_that_makes_many_or_long_ones_is_served_by_the_loop_until_it_makes_few() {
        let long = Work {
            chains: 1,
            bytes: 1000,
        };
        for much in [few(7), few(4), long] {
            let mut batching = Batching::default();
            while !batching.leave() {}
            batching.served(much, WORTH);
            for work in [few(1), few(2), few(3), much, few(1), few(3), few(1)] {
                assert!(batching.leave());
                batching.served(work, WORTH);
            }
            assert!(batching.leave());
            batching.served(few(1), WORTH);
            assert!(!batching.leave());
        }
    }
}
