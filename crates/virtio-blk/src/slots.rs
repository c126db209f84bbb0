//! Requests that are under way.

/// How a request is answered once it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The queue that it came by.
    pub(crate) queue: u16,
    /// The chain's head.
    pub(crate) head: u16,
    /// The guest-physical address of its status byte.
    pub(crate) status_at: u64,
    /// How many bytes have been written for the driver if all went well, with the status byte.
    pub(crate) written: u32,
}

/// Replies by the tokens of their operations. All memory is there from the start.
#[derive(Debug)]
pub(crate) struct Slots {
    replies: Vec<Option<Reply>>,
    /// Tokens that are not in use: the last is the next.
    free: Vec<u32>,
}

impl Slots {
    /// Tokens from 0 up to `depth`.
    pub(crate) fn new(depth: u32) -> Self {
        let mut slots = Self {
            replies: (0..depth).map(|_| None).collect(),
            free: Vec::new(),
        };
        slots.clear();
        slots
    }

    /// Forgets all that is under way.
    pub(crate) fn clear(&mut self) {
        self.replies.fill(None);
        self.free.clear();
        // `replies` was made with as many as a u32 counts.
        self.free
            .extend((0_u32..).zip(&self.replies).map(|(token, _)| token));
    }

    /// The token that is the next to be used, if there is one.
    #[inline]
    pub(crate) fn next(&self) -> Option<u32> {
        self.free.last().copied()
    }

    /// Uses the [`next`](Self::next) token.
    pub(crate) fn occupy(&mut self, reply: Reply) {
        if let Some(token) = self.free.pop()
            && let Some(slot) = self.slot(token)
        {
            *slot = Some(reply);
        }
    }

    /// Takes back a token; nothing if it is not in use.
    pub(crate) fn release(&mut self, token: u32) -> Option<Reply> {
        let reply = self.slot(token)?.take()?;
        self.free.push(token);
        Some(reply)
    }

    /// How many tokens there are.
    pub(crate) fn depth(&self) -> usize {
        self.replies.len()
    }

    /// Whether nothing is under way.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.replies.len()
    }

    /// What is under way.
    pub(crate) fn replies(&self) -> impl Iterator<Item = &Reply> {
        self.replies.iter().flatten()
    }

    fn slot(&mut self, token: u32) -> Option<&mut Option<Reply>> {
        self.replies.get_mut(usize::try_from(token).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_use_once() {
        let reply = |head| Reply {
            queue: 0,
            head,
            status_at: 0,
            written: 1,
        };
        let mut slots = Slots::new(2);
        assert!(slots.is_empty());
        let first = slots.next().unwrap();
        slots.occupy(reply(1));
        let second = slots.next().unwrap();
        slots.occupy(reply(2));
        assert!(first != second && slots.next().is_none());
        slots.occupy(reply(3));
        assert_eq!(slots.replies().count(), 2);
        assert_eq!(slots.release(first), Some(reply(1)));
        assert_eq!(slots.release(first), None);
        assert_eq!(slots.release(2), None);
        assert_eq!(slots.next(), Some(first));
        slots.clear();
        assert!(slots.is_empty() && slots.release(second).is_none());
    }
}
