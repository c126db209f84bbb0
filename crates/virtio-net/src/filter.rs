//! Which frames the driver wants (§5.1.6.5.1, §5.1.6.5.2).

use goldcrest_virtio::{QueueError, Reader};
use serde::{Deserialize, Serialize};

use crate::spec::control;

/// Entries of each table. A driver that wants more gets all frames of the kind.
const ENTRIES: usize = 64;
/// Bytes of an address.
const ADDRESS: usize = 6;

/// Which frames the driver wants: all, until it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Bits by the numbers of the commands of [`control::RX`].
    modes: u8,
    single: Table,
    groups: Table,
}

/// Addresses that are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    /// There were more than there is room for.
    all: bool,
    addresses: Vec<[u8; ADDRESS]>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            modes: 1 << control::RX_PROMISC,
            single: Table::default(),
            groups: Table::default(),
        }
    }
}

impl Filter {
    #[inline]
    const fn is(&self, mode: u8) -> bool {
        self.modes >> mode & 1 != 0
    }

    /// Whether all frames are wanted.
    #[inline]
    pub(crate) const fn wants_all(&self) -> bool {
        self.is(control::RX_PROMISC)
    }

    /// Turns a mode on or off. Returns whether there is such a mode.
    pub(crate) fn set(&mut self, mode: u8, on: bool) -> bool {
        if mode > control::RX_NOBCAST {
            return false;
        }
        self.modes = self.modes & !(1 << mode) | u8::from(on) << mode;
        true
    }

    /// Whether a frame to `to` is wanted by whoever has the address `own`.
    pub(crate) fn wants(&self, to: [u8; ADDRESS], own: [u8; ADDRESS]) -> bool {
        let [first, ..] = to;
        if self.wants_all() {
            true
        } else if to == [0xff; ADDRESS] {
            !self.is(control::RX_NOBCAST)
        } else if first & 1 != 0 {
            !self.is(control::RX_NOMULTI) && (self.is(control::RX_ALLMULTI) || self.groups.has(to))
        } else {
            !self.is(control::RX_NOUNI)
                && (to == own || self.is(control::RX_ALLUNI) || self.single.has(to))
        }
    }

    /// Takes over both tables of `VIRTIO_NET_CTRL_MAC_TABLE_SET`. Returns whether there were two, and no more.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if they do not lie in RAM.
    pub(crate) fn set_tables(&mut self, data: &mut Reader<'_>) -> Result<bool, QueueError> {
        let (Some(single), Some(groups)) = (Table::read(data)?, Table::read(data)?) else {
            return Ok(false);
        };
        if data.left() != 0 {
            return Ok(false);
        }
        (self.single, self.groups) = (single, groups);
        Ok(true)
    }

    /// Whether it is one that a driver can set.
    pub(crate) fn is_possible(&self) -> bool {
        let tables = [&self.single, &self.groups];
        self.modes >> (control::RX_NOBCAST + 1) == 0
            && tables.iter().all(|table| table.addresses.len() <= ENTRIES)
    }
}

impl Table {
    fn has(&self, address: [u8; ADDRESS]) -> bool {
        self.all || self.addresses.contains(&address)
    }

    fn read(data: &mut Reader<'_>) -> Result<Option<Self>, QueueError> {
        if data.left() < 4 {
            return Ok(None);
        }
        let entries = u32::from_le_bytes(data.read_array()?);
        let mut bytes = u64::from(entries) * ADDRESS as u64;
        if data.left() < bytes {
            return Ok(None);
        }
        let mut table = Self::default();
        if usize::try_from(entries).is_ok_and(|entries| entries <= ENTRIES) {
            for _ in 0..entries {
                table.addresses.push(data.read_array()?);
            }
            return Ok(Some(table));
        }
        table.all = true;
        while bytes > 0 {
            let most = usize::try_from(bytes).unwrap_or(usize::MAX);
            match data.take(most)? {
                Some(slice) => bytes -= slice.len() as u64,
                None => break,
            }
        }
        Ok(Some(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const ALL: [u8; 6] = [0xff; 6];

    #[test]
    fn what_is_wanted_follows_the_modes() {
        let wanted = |filter: &Filter| [OWN, OTHER, GROUP, ALL].map(|to| filter.wants(to, OWN));
        let mut filter = Filter::default();
        assert_eq!(wanted(&filter), [true; 4]);
        assert!(filter.set(control::RX_PROMISC, false));
        assert_eq!(wanted(&filter), [true, false, false, true]);
        filter.set(control::RX_ALLMULTI, true);
        assert_eq!(wanted(&filter), [true, false, true, true]);
        filter.set(control::RX_ALLUNI, true);
        assert_eq!(wanted(&filter), [true; 4]);
        filter.set(control::RX_NOMULTI, true);
        filter.set(control::RX_NOBCAST, true);
        assert_eq!(wanted(&filter), [true, true, false, false]);
        filter.set(control::RX_NOUNI, true);
        assert_eq!(wanted(&filter), [false; 4]);
        assert!(!filter.set(6, true) && !filter.set(255, true));
        assert!(filter.is_possible());
    }

    #[test]
    fn tables_have_bounds() {
        let mut filter = Filter::default();
        filter.set(control::RX_PROMISC, false);
        filter.single.addresses = vec![OTHER; ENTRIES];
        filter.groups.all = true;
        assert!(filter.is_possible() && filter.wants(OTHER, OWN) && filter.wants(GROUP, OWN));
        filter.single.addresses.push(OTHER);
        assert!(!filter.is_possible());
        filter.single.addresses.clear();
        filter.modes = 0x40;
        assert!(!filter.is_possible());
    }
}
