//! Control messages (§5.3.6.2).

use crate::spec::{CONTROL_SIZE, RESIZE_SIZE, event};

/// `struct virtio_console_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Control {
    /// The port's number.
    pub(crate) id: u32,
    pub(crate) event: u16,
    pub(crate) value: u16,
}

impl Control {
    pub(crate) const fn from_bytes(bytes: [u8; CONTROL_SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            id: u32::from_le_bytes([a, b, c, d]),
            event: u16::from_le_bytes([e, f]),
            value: u16::from_le_bytes([g, h]),
        }
    }

    pub(crate) const fn to_bytes(self) -> [u8; CONTROL_SIZE] {
        let [a, b, c, d] = self.id.to_le_bytes();
        let ([e, f], [g, h]) = (self.event.to_le_bytes(), self.value.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) cols: u16,
    pub(crate) rows: u16,
}

impl Size {
    /// `struct virtio_console_resize`, and how the configuration begins (§5.3.4).
    pub(crate) const fn to_bytes(self) -> [u8; RESIZE_SIZE] {
        let ([a, b], [c, d]) = (self.cols.to_le_bytes(), self.rows.to_le_bytes());
        [a, b, c, d]
    }
}

/// The messages that are owed to the driver of a port, but for the one that the port is open, which follows from how
/// it is. Each is owed once or not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owed(u8);

impl Owed {
    /// In the order in which they are sent.
    const EVENTS: [u16; 4] = [
        event::PORT_ADD,
        event::CONSOLE_PORT,
        event::PORT_NAME,
        event::RESIZE,
    ];

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        (u32::from(bits) >> Self::EVENTS.len() == 0).then_some(Self(bits))
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) fn add(&mut self, event: u16) {
        self.0 |= Self::bit(event);
    }

    pub(crate) fn remove(&mut self, event: u16) {
        self.0 &= !Self::bit(event);
    }

    pub(crate) fn first(self) -> Option<u16> {
        let mut events = Self::EVENTS.into_iter();
        events.find(|event| self.0 & Self::bit(*event) != 0)
    }

    fn bit(event: u16) -> u8 {
        let place = Self::EVENTS.iter().position(|each| *each == event);
        place.map_or(0, |place| 1 << place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_specifications_layout() {
        let bytes = [4, 3, 2, 1, 6, 0, 1, 0];
        let control = Control::from_bytes(bytes);
        assert_eq!(control.id, 0x0102_0304);
        assert_eq!((control.event, control.value), (event::PORT_OPEN, 1));
        assert_eq!(control.to_bytes(), bytes);
        let size = Size {
            cols: 0x102,
            rows: 3,
        };
        assert_eq!(size.to_bytes(), [2, 1, 3, 0]);
    }

    #[test]
    fn what_is_owed_comes_once_and_in_order() {
        let mut owed = Owed::default();
        for event in [
            event::RESIZE,
            event::PORT_ADD,
            event::PORT_ADD,
            event::PORT_OPEN,
        ] {
            owed.add(event);
        }
        assert_eq!(owed.first(), Some(event::PORT_ADD));
        owed.remove(event::PORT_ADD);
        assert_eq!(owed.first(), Some(event::RESIZE));
        owed.remove(event::RESIZE);
        assert_eq!(owed, Owed::default());
        assert_eq!(Owed::from_bits(0x0f).map(Owed::bits), Some(0x0f));
        assert_eq!(Owed::from_bits(0x10), None);
    }
}
