//! Guests that are made for other monitors, and what they call.

use crate::Seeds;
use crate::guests::{compact, compact_to};
use crate::images::{self, ElfBuilder, R, W, X, hermit_guest, segment, solo5_guest};

/// Guests that are made for other monitors, as they are and with what each format has.
pub(crate) fn foreign_seeds() -> Seeds {
    let with = |name, image: &[u8], way: u8| (name, [image, &[way]].concat());
    let solo5 = compact(&solo5_guest());
    let lonely = images::solo5_with(&images::abi_desc(1, 2), &images::manifest(&[])).build();
    let full: Vec<_> = (0..63).map(|n| format!("net{n}")).collect();
    let full: Vec<_> = full
        .iter()
        .map(|name| (name.as_str(), images::NET))
        .collect();
    let full = images::solo5_with(&images::abi_desc(1, 2), &images::manifest(&full)).build();
    let many: Vec<_> = (1..13u64)
        .map(|n| segment(R | X, n << 20, &[0x90; 16], 16))
        .collect();
    let many = ElfBuilder::new(1 << 20, many)
        .note(b"Solo5\0", images::ABI1, &images::abi_desc(1, 2))
        .note(b"Solo5\0", images::MFT1, &images::manifest(&[]))
        .build();
    let relas = [
        images::rela(0x1010, 8, 0, 0x123),
        images::rela(0x1018, 1, 0, 5),
        images::rela(0x1020, 6, 1, 0),
    ];
    let tables = [
        relas.concat(),
        images::symbol(1, false, 0x10),
        images::symbol(0, true, 0),
    ]
    .concat();
    vec![
        with("solo5", &solo5, 0),
        with("solo5", &solo5, 0xa0),
        with("solo5", &solo5, 1),
        with("solo5", &compact(&lonely), 3),
        with("solo5", &compact(&full), 3),
        with("solo5", &compact(&many), 3),
        with("hermit", &compact(&hermit_guest()), 0x80),
        with("hermit", &relocatable(&tables, relas.len()), 0x80),
        with("hermit", &relocatable(&tables, relas.len()), 0),
        ("solo5_hypercalls", solo5_calls()),
        ("hermit_hypercalls", hermit_calls()),
    ]
}

/// A Hermit guest that can lie anywhere, without padding: code, tables, data, and where the dynamic section is.
fn relocatable(tables: &[u8], count: usize) -> Vec<u8> {
    let size = u64::try_from(24 * count).unwrap_or(0);
    let words = [7, 0x800, 8, size, 9, 24, 6, 0x800 + size, 0, 0];
    let dynamic: Vec<u8> = words
        .iter()
        .flat_map(|word: &u64| word.to_le_bytes())
        .collect();
    let segments = vec![
        segment(R | X, 0, &[0x90; 16], 16),
        segment(R, 0x800, tables, 0x400),
        segment(R | W, 0x1000, &[0x22; 16], 0x800),
        segment(R | W, 0x4000, &dynamic, 0x100),
    ];
    let image = images::hermit_notes(ElfBuilder::new(0x8, segments), 4, 1).build();
    let mut small = compact_to(&image, 256);
    small[16] = 3;
    small[images::PROGRAM_HEADERS + 56 * 4] = 2;
    small
}

/// Calls of each kind that are well-formed, as `solo5_hypercalls` takes them.
fn solo5_calls() -> Vec<u8> {
    let mut seed = Vec::new();
    let script = |choices: &[u8]| {
        let len = u8::try_from(choices.len()).unwrap_or(0);
        [&[0x90, len], choices].concat()
    };
    // Where the argument is, and five words.
    let argument = |words: [&[u8]; 5]| [&[0xa0, 0, 0x20][..], &words.concat()].concat();
    const AT: &[u8] = &[0x80, 0, 0x30];
    const NONE: &[u8] = &[0];
    let call = |number: u8| vec![number, 0, 0x20];
    /// What the host answers, the words of the argument, the hypercall's number.
    type Call<'a> = (&'a [u8], [&'a [u8]; 5], u8);
    let calls: [Call<'_>; 12] = [
        (&[], [AT, &[0x41], NONE, NONE, NONE], 2),
        (&[], [&[1], &[0x40], AT, &[0x41], NONE], 4),
        (&[], [&[1], &[0x42], AT, &[0x44], NONE], 5),
        (&[1], [&[1], &[0x42], AT, &[0x44], NONE], 5),
        (&[0], [&[2], AT, &[0x80, 60, 0], NONE, NONE], 6),
        (&[0x70], [&[3], AT, &[0x80, 0, 4], NONE, NONE], 7),
        (&[0x70, 0x70], [NONE; 5], 3),
        (
            &[2, 0, 0, 0, 0, 0],
            [&[0x80, 0, 9], NONE, NONE, NONE, NONE],
            3,
        ),
        (&[0xfe, 0, 0, 0, 0, 0], [&[0xf0], NONE, NONE, NONE, NONE], 3),
        (&[5], [NONE; 5], 1),
        (&[], [AT, &[0x80, 255, 0], NONE, NONE, NONE], 8),
        (&[], [&[0xf1], &[0x80, 255, 0], NONE, NONE, NONE], 8),
    ];
    for (choices, words, number) in calls {
        seed.extend(script(choices));
        seed.extend(argument(words));
        seed.extend(call(number));
    }
    seed
}

/// Words and calls, as `hermit_hypercalls` takes them.
fn hermit_calls() -> Vec<u8> {
    let mut seed = Vec::new();
    let word = |at: u16, value: &[u8]| [&[0x80][..], &at.to_le_bytes(), value].concat();
    // Page tables at 0x1000, 0x2000, 0x3000 and 0x4000, to the page at 0x5000.
    for table in 1..5u8 {
        seed.extend(word(u16::from(table) << 12, &[table + 1]));
    }
    // Standard output, the virtual address 0x10, five bytes: fields that are not aligned.
    seed.extend(word(0x5000, &[0x41]));
    seed.extend(word(0x5008, &[0x40]));
    seed.extend(word(0x5010, &[0x45]));
    for choice in 0..11u8 {
        seed.extend([choice, 0, 0x50]);
        seed.extend([choice | 0x40, 0, 0x50]);
    }
    seed
}
