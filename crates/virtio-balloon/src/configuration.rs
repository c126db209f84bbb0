//! The configuration (§5.5.4), as the driver reads and writes it.

use crate::spec::config;

/// `struct virtio_balloon_config`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) num_pages: u32,
    pub(crate) actual: u32,
    pub(crate) cmd_id: u32,
    pub(crate) poison: u32,
}

impl Configuration {
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(self.to_bytes().into_iter().skip(skip)) {
            *to = from;
        }
    }

    /// The driver writes bytes; those that are not its to write stay. The poison's is so until it is ready (§5.5.6.6.1).
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], ready: bool) {
        let mut bytes = self.to_bytes();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for ((place, to), from) in bytes.iter_mut().enumerate().skip(skip).zip(data) {
            let field = place / size_of::<u32>() * size_of::<u32>();
            if field == config::ACTUAL || field == config::POISON_VAL && !ready {
                *to = *from;
            }
        }
        let (words, _) = bytes.as_chunks::<4>();
        if let [_, actual, _, poison] = words {
            self.actual = u32::from_le_bytes(*actual);
            self.poison = u32::from_le_bytes(*poison);
        }
    }

    fn to_bytes(self) -> [u8; config::SIZE] {
        let mut bytes = [0; config::SIZE];
        let fields = [self.num_pages, self.actual, self.cmd_id, self.poison];
        let (places, _) = bytes.as_chunks_mut::<4>();
        for (place, field) in places.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Configuration = Configuration {
        num_pages: 0x0403_0201,
        actual: 0x0807_0605,
        cmd_id: 0x0c0b_0a09,
        poison: 0x100f_0e0d,
    };

    #[test]
    fn it_is_read_by_any_width_and_ends_in_zeros() {
        let read = |offset, len: usize| {
            let mut data = vec![0; len];
            BEFORE.read(offset, &mut data);
            data
        };
        assert_eq!(read(0, 16), (1..=16).collect::<Vec<u8>>());
        assert_eq!(read(4, 4), [5, 6, 7, 8]);
        assert_eq!(read(7, 2), [8, 9]);
        assert_eq!(read(14, 4), [15, 16, 0, 0]);
        for offset in [16, 1 << 32, u64::MAX] {
            assert_eq!(read(offset, 2), [0, 0]);
        }
    }

    #[test]
    fn the_driver_writes_its_own_fields_alone() {
        for (ready, poison) in [(false, 0xffff_ffff), (true, BEFORE.poison)] {
            let mut after = BEFORE;
            after.write(0, &[0xff; 64], ready);
            let expected = Configuration {
                actual: u32::MAX,
                poison,
                ..BEFORE
            };
            assert_eq!(after, expected);
        }
        let mut after = BEFORE;
        after.write(3, &[1, 2], false);
        after.write(7, &[3, 4], false);
        after.write(u64::MAX, &[5], false);
        after.write(16, &[5], false);
        after.write(4, &[], false);
        assert_eq!(
            after,
            Configuration {
                actual: 0x0307_0602,
                ..BEFORE
            }
        );
    }
}
