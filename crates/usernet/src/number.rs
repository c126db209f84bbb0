//! Who is meant: one number for each flow of each kind.

use crate::host::Token;
use crate::slab::Id;

/// What has a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A connection.
    Tcp,
    /// A flow of UDP or of echo requests.
    Datagrams,
    /// A port of the host that leads to the guest.
    Listener,
}

/// The kind in the lowest bits, and the number among those of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number(u32);

impl Number {
    pub(crate) fn new(kind: Kind, index: u32) -> Self {
        let kind = match kind {
            Kind::Tcp => 0,
            Kind::Datagrams => 1,
            Kind::Listener => 2,
        };
        Self(index << 2 | kind)
    }

    pub(crate) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    pub(crate) fn raw(self) -> u32 {
        self.0
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Tcp,
            1 => Kind::Datagrams,
            _ => Kind::Listener,
        }
    }

    pub(crate) fn index(self) -> u32 {
        self.0 >> 2
    }

    pub(crate) fn id(self, generation: u32) -> Id {
        Id {
            index: self.index(),
            generation,
        }
    }

    /// What the host is told for the socket.
    pub(crate) fn token(kind: Kind, id: Id) -> Token {
        u64::from(id.generation) << 32 | u64::from(Self::new(kind, id.index).0)
    }

    /// The number and its generation.
    pub(crate) fn from_token(token: Token) -> (Self, u32) {
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        (Self(low(token)), low(token >> 32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_by_its_token() {
        for (kind, index) in [
            (Kind::Tcp, 0),
            (Kind::Datagrams, 65535),
            (Kind::Listener, 7),
        ] {
            let id = Id {
                index,
                generation: 0xff_ffff,
            };
            let (number, generation) = Number::from_token(Number::token(kind, id));
            assert_eq!((number.kind(), number.id(generation)), (kind, id));
            assert_eq!(Number::from_raw(number.raw()), number);
        }
    }
}
