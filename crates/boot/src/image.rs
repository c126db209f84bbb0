//! Images: where the bytes of a kernel, a unikernel or a RAM disk come from.

use std::borrow::Cow;
use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use goldcrest_memory::GuestRam;

use crate::error::one_line;
use crate::load::Copied;
use crate::{BadImage, BootError};

/// How much of a file is read at once when it is opened: most images have all their headers here.
const HEAD: u64 = 4096;

/// A kernel, a unikernel or an initial RAM disk: a file, or bytes in the program itself.
///
/// Only headers are ever read. What goes into guest memory is mapped from the file.
#[derive(Debug)]
pub struct Image {
    name: String,
    len: u64,
    /// The first bytes of a file, or all of an image in memory.
    head: Cow<'static, [u8]>,
    file: Option<File>,
}

impl Image {
    /// Opens a regular file.
    ///
    /// # Errors
    ///
    /// If it is missing, not readable, empty, or not a regular file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BootError> {
        let path = path.as_ref();
        let open = |source| BootError::Open {
            path: path.to_path_buf(),
            source,
        };
        // Without O_NONBLOCK, a named pipe without a writer would block here for ever.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        if !metadata.is_file() {
            return Err(BootError::NotAFile {
                path: path.to_path_buf(),
                found: kind_of(metadata.file_type()),
            });
        }
        Self::from_file(one_line(path), file, metadata.len())
    }

    /// An image that is part of the program, as by `include_bytes!`.
    ///
    /// # Errors
    ///
    /// If there are no bytes.
    pub fn from_bytes(
        name: impl Into<String>,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self, BootError> {
        let (name, head) = (name.into(), bytes.into());
        if head.is_empty() {
            return Err(BootError::Empty { image: name });
        }
        let len = u64::try_from(head.len()).unwrap_or(u64::MAX);
        Ok(Self {
            name,
            len,
            head,
            file: None,
        })
    }

    fn from_file(name: String, file: File, len: u64) -> Result<Self, BootError> {
        if len == 0 {
            return Err(BootError::Empty { image: name });
        }
        let head_len = len.min(HEAD);
        let mut head = vec![0; usize::try_from(head_len).unwrap_or(0)];
        if let Err(source) = file.read_exact_at(&mut head, 0) {
            return Err(BootError::Read {
                image: name,
                offset: 0,
                len: head_len,
                source,
            });
        }
        Ok(Self {
            name,
            len,
            head: head.into(),
            file: Some(file),
        })
    }

    /// What the image is called in messages: its path, with control characters escaped.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the image when it was opened; never 0.
    #[allow(clippy::len_without_is_empty, reason = "an image is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The file, unless the image is bytes in memory.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// If the image ends before the buffer does, or reading fails.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BootError> {
        let len = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        if let Some(bytes) = self.in_head(offset, buffer.len()) {
            buffer.copy_from_slice(bytes);
            return Ok(());
        }
        let result = match &self.file {
            Some(file) if offset.checked_add(len).is_some_and(|end| end <= self.len) => {
                file.read_exact_at(buffer, offset)
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        result.map_err(|source| BootError::Read {
            image: self.name.clone(),
            offset,
            len,
            source,
        })
    }

    /// The first bytes, at most `len` of them.
    pub(crate) fn beginning(&self, len: usize) -> &[u8] {
        self.head.get(..len).unwrap_or(&self.head)
    }

    /// Puts `len` bytes of the image at guest-physical `at`: mapped where it is a file, else copied.
    pub(crate) fn place(
        &self,
        ram: &GuestRam,
        what: &'static str,
        offset: u64,
        at: u64,
        len: u64,
    ) -> Result<Copied, BootError> {
        if len == 0 {
            return Ok(Copied::default());
        }
        if let Some(file) = &self.file {
            let placed = ram
                .load_file(file, offset, at, len)
                .map_err(BootError::memory(what))?;
            return Ok(Copied {
                mapped: placed.mapped,
                copied: placed.copied,
            });
        }
        let bytes = usize::try_from(len)
            .ok()
            .and_then(|len| self.in_head(offset, len))
            .ok_or_else(|| BootError::Read {
                image: self.name.clone(),
                offset,
                len,
                source: io::ErrorKind::UnexpectedEof.into(),
            })?;
        ram.write(at, bytes).map_err(BootError::memory(what))?;
        Ok(Copied {
            mapped: 0,
            copied: len,
        })
    }

    pub(crate) fn bad(&self, problem: BadImage) -> BootError {
        BootError::Image {
            image: self.name.clone(),
            problem,
        }
    }

    fn in_head(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.head.get(start..start.checked_add(len)?)
    }
}

fn kind_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "named pipe"
    } else if kind.is_block_device() || kind.is_char_device() {
        "device"
    } else {
        "special file"
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io::Write;

    use super::*;

    fn message(result: Result<Image, BootError>) -> String {
        let error = result.unwrap_err();
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let missing = message(Image::open(Path::new("/no/such/kernel")));
        assert!(
            missing.starts_with("cannot open /no/such/kernel: No such file"),
            "{missing}"
        );
        let directory = message(Image::open(Path::new("/")));
        assert_eq!(directory, "/: not a regular file but a directory");
        let device = message(Image::open(Path::new("/dev/null")));
        assert_eq!(device, "/dev/null: not a regular file but a device");
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(message(Image::open(empty.path())).ends_with(": empty"));
        assert_eq!(
            message(Image::from_bytes("none", Vec::new())),
            "none: empty"
        );
    }

    #[test]
    fn control_characters_in_a_path_are_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        let escaped = |name| format!("{}/{name}", dir.path().display());

        std::fs::write(path("naïve\nkernel\x1b[2J"), [0]).unwrap();
        let image = Image::open(path("naïve\nkernel\x1b[2J")).unwrap();
        assert_eq!(image.name(), escaped(r"naïve\nkernel\u{1b}[2J"));

        let missing = message(Image::open(path("missing\r\u{9b}")));
        let expected = format!("cannot open {}: ", escaped(r"missing\r\u{9b}"));
        assert!(missing.starts_with(&expected), "{missing}");

        std::fs::create_dir(path("dir\n")).unwrap();
        let directory = message(Image::open(path("dir\n")));
        let expected = escaped(r"dir\n: not a regular file but a directory");
        assert_eq!(directory, expected);
    }

    #[test]
    fn a_named_pipe_without_a_writer_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(message(Image::open(&path)).ends_with("not a regular file but a named pipe"));
    }

    #[test]
    fn reads_inside_and_beyond_the_first_page() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..10_000u32).map(|n| n.to_le_bytes()[0]).collect();
        file.write_all(&bytes).unwrap();
        let opened = Image::open(file.path()).unwrap();
        let embedded = Image::from_bytes("embedded", bytes.clone()).unwrap();
        for image in [opened, embedded] {
            assert_eq!(image.len(), 10_000);
            for offset in [0usize, 4000, 4090, 5000, 9990] {
                let mut buffer = [0; 10];
                image.read_at(offset as u64, &mut buffer).unwrap();
                assert_eq!(buffer, bytes[offset..offset + 10]);
            }
            for offset in [9991, 10_000, u64::MAX - 5, u64::MAX] {
                let error = image.read_at(offset, &mut [0; 10]).unwrap_err();
                assert!(matches!(error, BootError::Read { .. }), "{error}");
            }
        }
    }
}
