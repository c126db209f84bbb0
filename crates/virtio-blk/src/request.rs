//! What a driver asks for, read from bytes and checked against the disk.

use crate::spec::{SECTOR_SIZE, request, status};

/// What a request may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sectors of the disk.
    pub sectors: u64,
    /// Whether it can only be read.
    pub read_only: bool,
    /// The most sectors of a range to discard or zero; 0 if there are no such requests.
    pub range_sectors: u32,
}

/// A request that can be carried out. Offsets and lengths are bytes and lie on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Read as much as the device-writable data has room for, from here.
    Read {
        /// Where on the disk.
        offset: u64,
    },
    /// Write the device-readable data, to here.
    Write {
        /// Where on the disk.
        offset: u64,
    },
    /// Make durable what completed before.
    Flush,
    /// Say the disk's name.
    GetId,
    /// Read a [`Range`] from the device-readable data, and forget it.
    Discard,
    /// Read a [`Range`] from the device-readable data, and turn it into zeros.
    WriteZeroes,
}

/// Sectors to discard or to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first byte on the disk.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Whether their space may be given back.
    pub unmap: bool,
}

/// Why a request is not carried out, as its status byte says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `VIRTIO_BLK_S_IOERR`.
    IoError,
    /// `VIRTIO_BLK_S_UNSUPP`.
    Unsupported,
}

impl Refusal {
    /// The status byte.
    pub const fn status(self) -> u8 {
        match self {
            Self::IoError => status::IOERR,
            Self::Unsupported => status::UNSUPP,
        }
    }
}

impl Request {
    /// Reads a header and checks it, with the bytes of data that the device reads (without the header) and writes
    /// (without the status byte).
    ///
    /// # Errors
    ///
    /// [`Refusal`], if the request is of an unknown type, does not lie on the disk in whole sectors, has data in the
    /// wrong direction, or writes to what can only be read (§5.2.6.2).
    #[inline]
    pub fn parse(
        header: &[u8; request::HEADER_SIZE],
        readable: u64,
        writable: u64,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let [a, b, c, d, _, _, _, _, sector @ ..] = *header;
        let sector = u64::from_le_bytes(sector);
        let if_writable = |request| match limits.read_only {
            true => Err(Refusal::IoError),
            false => Ok(request),
        };
        match u32::from_le_bytes([a, b, c, d]) {
            request::IN if readable == 0 => {
                let offset = limits.place(sector, writable)?;
                Ok(Self::Read { offset })
            }
            request::OUT if writable == 0 => {
                let offset = limits.place(sector, readable)?;
                if_writable(Self::Write { offset })
            }
            // Data where there should be none does no harm.
            request::FLUSH => Ok(Self::Flush),
            request::GET_ID if writable >= request::ID_SIZE as u64 => Ok(Self::GetId),
            kind @ (request::DISCARD | request::WRITE_ZEROES) if limits.range_sectors > 0 => {
                // One range, as the configuration says.
                if readable != request::RANGE_SIZE as u64 {
                    return Err(Refusal::IoError);
                }
                if_writable(match kind {
                    request::DISCARD => Self::Discard,
                    _ => Self::WriteZeroes,
                })
            }
            request::IN | request::OUT | request::GET_ID => Err(Refusal::IoError),
            _ => Err(Refusal::Unsupported),
        }
    }
}

impl Range {
    /// Reads a range to discard, or with `zeroes` one to zero, and checks it.
    ///
    /// # Errors
    ///
    /// [`Refusal`], if it does not lie on the disk, is too long, or has flags that it must not (§5.2.6.2).
    pub fn parse(
        bytes: &[u8; request::RANGE_SIZE],
        zeroes: bool,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let [sector @ .., a, b, c, d, e, f, g, h] = *bytes;
        let sectors = u32::from_le_bytes([a, b, c, d]);
        let flags = u32::from_le_bytes([e, f, g, h]);
        let allowed = if zeroes { request::RANGE_UNMAP } else { 0 };
        if flags & !allowed != 0 {
            return Err(Refusal::Unsupported);
        }
        if sectors > limits.range_sectors {
            return Err(Refusal::IoError);
        }
        let len = u64::from(sectors) * SECTOR_SIZE;
        Ok(Self {
            offset: limits.place(u64::from_le_bytes(sector), len)?,
            len,
            unmap: flags & request::RANGE_UNMAP != 0,
        })
    }
}

impl Limits {
    /// The byte offset of `len` bytes from `sector`, if they are whole sectors of the disk.
    fn place(&self, sector: u64, len: u64) -> Result<u64, Refusal> {
        let sectors = len / SECTOR_SIZE;
        let end = sector.checked_add(sectors);
        if len.is_multiple_of(SECTOR_SIZE) && end.is_some_and(|end| end <= self.sectors) {
            sector.checked_mul(SECTOR_SIZE).ok_or(Refusal::IoError)
        } else {
            Err(Refusal::IoError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: Limits = Limits {
        sectors: 100,
        read_only: false,
        range_sectors: 50,
    };

    fn header(kind: u32, sector: u64) -> [u8; 16] {
        let mut header = [0xee; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        header
    }

    fn range(sector: u64, sectors: u32, flags: u32) -> [u8; 16] {
        let mut range = [0; 16];
        range[..8].copy_from_slice(&sector.to_le_bytes());
        range[8..12].copy_from_slice(&sectors.to_le_bytes());
        range[12..].copy_from_slice(&flags.to_le_bytes());
        range
    }

    #[test]
    fn requests_are_what_their_bytes_say() {
        let parse = |kind, sector, readable, writable| {
            Request::parse(&header(kind, sector), readable, writable, &DISK)
        };
        assert_eq!(parse(0, 3, 0, 512), Ok(Request::Read { offset: 1536 }));
        assert_eq!(parse(0, 100, 0, 0), Ok(Request::Read { offset: 51200 }));
        assert_eq!(parse(1, 99, 512, 0), Ok(Request::Write { offset: 50688 }));
        assert_eq!(parse(4, u64::MAX, 0, 0), Ok(Request::Flush));
        assert_eq!(parse(8, 0, 0, 20), Ok(Request::GetId));
        assert_eq!(parse(11, 0, 16, 0), Ok(Request::Discard));
        assert_eq!(parse(13, 0, 16, 0), Ok(Request::WriteZeroes));
    }

    #[test]
    fn what_is_not_on_the_disk_or_not_whole_is_an_io_error() {
        for (kind, sector, readable, writable) in [
            (0, 100, 0, 512),
            (0, 99, 0, 1024),
            (0, 0, 0, 511),
            (0, 0, 0, u64::MAX),
            (0, u64::MAX, 0, 512),
            (0, 1 << 55, 0, 512),
            (0, 0, 512, 512),
            (1, 0, 512, 512),
            (1, 101, 0, 0),
            (8, 0, 0, 19),
            (11, 0, 15, 0),
            (13, 0, 32, 0),
        ] {
            let parsed = Request::parse(&header(kind, sector), readable, writable, &DISK);
            assert_eq!(parsed, Err(Refusal::IoError), "{kind} {sector:#x}");
        }
        for kind in [2, 3, 5, 10, 14, u32::MAX] {
            let parsed = Request::parse(&header(kind, 0), 0, 0, &DISK);
            assert_eq!(parsed, Err(Refusal::Unsupported));
        }
    }

    #[test]
    fn a_read_only_disk_is_read_only() {
        let read_only = Limits {
            read_only: true,
            ..DISK
        };
        for (kind, readable, writable, allowed) in [
            (0, 0, 512, true),
            (1, 512, 0, false),
            (4, 0, 0, true),
            (8, 0, 20, true),
            (11, 16, 0, false),
            (13, 16, 0, false),
        ] {
            let parsed = Request::parse(&header(kind, 0), readable, writable, &read_only);
            assert_eq!(parsed.is_ok(), allowed, "{kind}");
        }
        let none = Limits {
            range_sectors: 0,
            ..DISK
        };
        let parsed = Request::parse(&header(11, 0), 16, 0, &none);
        assert_eq!(parsed, Err(Refusal::Unsupported));
    }

    #[test]
    fn ranges_are_what_their_bytes_say() {
        let whole = |unmap| Range {
            offset: 51200 - 25600,
            len: 25600,
            unmap,
        };
        assert_eq!(
            Range::parse(&range(50, 50, 0), false, &DISK),
            Ok(whole(false))
        );
        assert_eq!(
            Range::parse(&range(50, 50, 1), true, &DISK),
            Ok(whole(true))
        );
        for (bytes, zeroes, refusal) in [
            (range(0, 1, 1), false, Refusal::Unsupported),
            (range(0, 1, 2), true, Refusal::Unsupported),
            (range(0, 51, 0), true, Refusal::IoError),
            (range(51, 50, 0), false, Refusal::IoError),
            (range(u64::MAX, 1, 0), false, Refusal::IoError),
        ] {
            assert_eq!(Range::parse(&bytes, zeroes, &DISK), Err(refusal));
        }
        assert_eq!(
            [Refusal::IoError, Refusal::Unsupported].map(Refusal::status),
            [1, 2]
        );
    }

    proptest! {
        /// Whatever the bytes: what is accepted lies on the disk.
        #[test]
        fn what_is_accepted_lies_on_the_disk(
            bytes: [u8; 16], kind in 0_u32..15, sector in 0_u64..200,
            readable in 0_u64..60_000, writable in 0_u64..60_000,
        ) {
            let _ = Request::parse(&bytes, readable, writable, &DISK);
            let end = DISK.sectors * SECTOR_SIZE;
            match Request::parse(&header(kind, sector), readable, writable, &DISK) {
                Ok(Request::Read { offset }) => prop_assert!(offset + writable <= end),
                Ok(Request::Write { offset }) => prop_assert!(offset + readable <= end),
                _ => {}
            }
            if let Ok(range) = Range::parse(&bytes, true, &DISK) {
                prop_assert!(range.offset + range.len <= end);
            }
        }
    }
}
