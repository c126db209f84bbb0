//! Any text as loader entries, settings and os-release; the order of what comes out is one.

use goldcrest_firmware::Menu;
use goldcrest_firmware::entry::{
    Entry, Fields, LoaderConf, OsRelease, Source, Timeout, compare, matches, parse, split_counter,
};

/// Runs the target: entries are separated by zeros, each begins with the name of its file.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let parts: Vec<&str> = text.split('\0').take(6).collect();
    let mut entries = Vec::new();
    for part in &parts {
        let (name, body) = part.split_once('\n').unwrap_or((part, ""));
        let conf = LoaderConf::parse(body);
        if let Some(pattern) = &conf.default {
            let _ = matches(pattern, name);
        }
        assert!(matches("*", name));
        let release = OsRelease::parse(body);
        let _ = release.first_of(&["PRETTY_NAME", "ID"]);
        let fields = parse(body);
        if let Some(entry) = entry(name, fields) {
            entries.push(entry);
        }
    }
    for a in &entries {
        assert!(compare(a, a).is_eq());
        for b in &entries {
            assert_eq!(compare(a, b), compare(b, a).reverse());
            // Sorting panics if what is before what is before something is not before it.
            for c in &entries {
                let in_order = compare(a, b).is_le() && compare(b, c).is_le();
                assert!(!in_order || compare(a, c).is_le());
            }
        }
    }
    entries.sort_by(compare);
    if let Some(mut menu) = Menu::new(&entries, 0, Timeout::Seconds(3), 0) {
        assert!(!menu.draw().is_empty());
        for (now, byte) in (0..).step_by(10_000_000).zip(data) {
            let chosen = menu.tick(now).ok().or(menu.key(*byte).ok());
            assert!(chosen.is_none_or(|chosen| chosen == 0 || chosen < entries.len()));
        }
    }
}

fn entry(name: &str, fields: Fields) -> Option<Entry> {
    let (stem, counter) = split_counter(name, ".conf")?;
    let disk = goldcrest_firmware::MemoryDisk::new(crate::disk_image::small_fat()).into_disk("vda");
    let file_system = goldcrest_firmware::FileSystem::open(&disk.whole()).ok()??;
    Some(Entry {
        id: format!("{stem}.conf"),
        title: fields.title,
        version: fields.version,
        sort_key: fields.sort_key,
        machine_id: fields.machine_id,
        counter,
        place: "vda".to_owned(),
        source: Source::Linux {
            file_system: file_system.into(),
            linux: fields.linux?,
            initrds: fields.initrd,
            options: fields.options.unwrap_or_default(),
        },
    })
}
