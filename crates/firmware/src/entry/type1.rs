//! Type 1 entries (Boot Loader Specification, "Type #1 Boot Loader Entry Keys").

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// What an entry's file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Fields {
    pub title: Option<String>,
    pub version: Option<String>,
    pub machine_id: Option<String>,
    pub sort_key: Option<String>,
    pub linux: Option<String>,
    pub initrd: Vec<String>,
    pub efi: Option<String>,
    pub uki: Option<String>,
    pub options: Option<String>,
    pub architecture: Option<String>,
}

impl Fields {
    /// Whether it is for this processor.
    pub fn is_for_x64(&self) -> bool {
        let architecture = self.architecture.as_deref();
        architecture.is_none_or(|name| name.eq_ignore_ascii_case("x64"))
    }
}

/// Reads the text of an entry. Keys that are not known are passed over; `initrd` and `options` may come several times,
/// of the others the last counts.
pub fn parse(text: &str) -> Fields {
    let mut fields = Fields::default();
    for (key, value) in lines(text) {
        let value = value.to_owned();
        let once = match key {
            "title" => &mut fields.title,
            "version" => &mut fields.version,
            "machine-id" => &mut fields.machine_id,
            "sort-key" => &mut fields.sort_key,
            "linux" => &mut fields.linux,
            "efi" => &mut fields.efi,
            "uki" => &mut fields.uki,
            "architecture" => &mut fields.architecture,
            "initrd" => {
                fields.initrd.push(value);
                continue;
            }
            "options" => {
                let all = fields.options.get_or_insert_default();
                if !all.is_empty() {
                    all.push(' ');
                }
                all.push_str(&value);
                continue;
            }
            _ => continue,
        };
        *once = Some(value);
    }
    fields
}

/// Key and value of each line that has both and is no comment.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (key, value) = line.split_once([' ', '\t'])?;
        Some((key, value.trim_start()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_kernel_install_writes_it() {
        let fields = parse(
            "# Boot Loader Specification type#1 entry\n# File created by /usr/lib/kernel/install.d/90-loaderentry.install (systemd 252)\n\
             title      Debian GNU/Linux 12 (bookworm)\nversion    6.1.0-39-cloud-amd64\nmachine-id 0123\nsort-key   debian\n\
             options    root=UUID=1 ro\noptions quiet  \nlinux      /0123/6.1.0-39-cloud-amd64/linux\r\n\
             initrd     /0123/6.1.0-39-cloud-amd64/initrd.img-6.1.0-39-cloud-amd64\ninitrd /second\ngrub_users $x\nlinux\n",
        );
        assert_eq!(
            fields.title.as_deref(),
            Some("Debian GNU/Linux 12 (bookworm)")
        );
        assert_eq!(
            fields.linux.as_deref(),
            Some("/0123/6.1.0-39-cloud-amd64/linux")
        );
        assert_eq!(fields.options.as_deref(), Some("root=UUID=1 ro quiet"));
        assert_eq!(fields.initrd.len(), 2);
        assert!(fields.is_for_x64());
    }

    #[test]
    fn an_entry_for_another_processor_is_told() {
        for (text, ours) in [
            ("architecture X64", true),
            ("architecture aa64", false),
            ("", true),
        ] {
            assert_eq!(parse(text).is_for_x64(), ours, "{text}");
        }
    }
}
