//! How streams come to rest, and to an end.

use crate::spec::shutdown;
use crate::stream::{Owed, Phase};
use crate::{Backend, Vsock};

impl<B: Backend> Vsock<B> {
    /// Puts a stream where it is looked for, by what it has for the guest.
    pub(crate) fn schedule(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        let (reads, may_send) = (stream.may_read(), stream.outbound.allowance() > 0);
        let (ready, held) = (reads && may_send, reads && !may_send);
        if held && !self.streams.held.contains(number) {
            let now = self.clock.now();
            if let Some(stream) = self.streams.get_mut(number) {
                stream.ask_later(now);
                let ask_at = stream.ask_at;
                let alone = self.streams.held.is_empty();
                self.ask_at = if alone {
                    ask_at
                } else {
                    self.ask_at.min(ask_at)
                };
            }
        }
        let owes = self.streams.get(number).is_some_and(|s| !s.owed.is_empty());
        for (rota, belongs) in [
            (&mut self.streams.ready, ready),
            (&mut self.streams.held, held),
            (&mut self.streams.owing, owes),
        ] {
            match belongs {
                true => {
                    rota.push(number);
                }
                false => rota.remove(number),
            }
        }
    }

    /// The guest wants no more of the stream: it is told that it is over, and the host gets what it has not taken.
    pub(crate) fn end_stream(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        if stream.backlog.is_empty() || stream.host_shut & shutdown::RECEIVE != 0 {
            stream.host = None;
        }
        self.over(number);
    }

    /// The stream cannot go on: both its ends are told so, and nothing else.
    pub(crate) fn reset_stream(&mut self, number: u32) {
        if let Some(stream) = self.streams.get_mut(number) {
            stream.host = None;
        }
        self.over(number);
    }

    fn over(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        stream.phase = Phase::Over;
        stream.owed = Owed::default();
        stream.owed.add(Owed::RESET);
        self.streams.dialing.remove(number);
        self.streams.timed.remove(number);
        if self.streams.get(number).is_some_and(|s| s.host.is_some()) {
            self.give_time(number);
        }
        self.settle(number);
    }

    /// What is left of a stream that is over: nothing, if neither guest nor host need anything of it.
    pub(crate) fn settle(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        if stream.backlog.is_empty() {
            stream.host = None;
        }
        if stream.host.is_none() {
            stream.backlog.clear(&mut self.spare);
        }
        let (done, told) = (stream.host.is_none(), stream.owed.is_empty());
        match (done, told) {
            (true, true) => self.remove_stream(number),
            (false, true) => {
                self.streams.forget(number);
                self.schedule(number);
            }
            (_, false) => self.schedule(number),
        }
    }

    /// Both ends know that the stream is no more, or are told by its absence.
    pub(crate) fn remove_stream(&mut self, number: u32) {
        if let Some(mut stream) = self.streams.remove(number) {
            stream.backlog.clear(&mut self.spare);
        }
    }
}
