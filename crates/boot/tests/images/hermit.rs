//! Hermit guests, built by hand.

use super::{ElfBuilder, PROGRAM_HEADERS, R, W, X, segment};

pub const NT_HERMIT_ENTRY_VERSION: u32 = 0x5a00;
pub const NT_UHYVE_INTERFACE_VERSION: u32 = 0x5b00;

const DT_NULL: u64 = 0;
pub const DT_NEEDED: u64 = 1;
pub const DT_SYMTAB: u64 = 6;
pub const DT_RELA: u64 = 7;
pub const DT_RELASZ: u64 = 8;
pub const DT_RELAENT: u64 = 9;
pub const R_RELATIVE: u64 = 8;

/// Where the relocatable guest has its relocations, its dynamic section and what is relocated.
pub const RELA: u64 = 0x2000;
pub const DYNAMIC: u64 = 0xa000;
pub const RELOCATED: u64 = 0xa800;

/// Notes of these versions.
pub fn hermit_notes(builder: ElfBuilder, entry: u8, uhyve: u32) -> ElfBuilder {
    let abi = [6u32, 0, 11, 0].map(u32::to_le_bytes).concat();
    builder
        .note(b"HERMIT\0", NT_HERMIT_ENTRY_VERSION, &[entry])
        .note(
            b"UHYVEIF\0",
            NT_UHYVE_INTERFACE_VERSION,
            &uhyve.to_be_bytes(),
        )
        .note(b"GNU\0", 1, &abi)
}

/// A guest that is linked at 2 MiB.
pub fn hermit_guest() -> Vec<u8> {
    let segments = vec![
        segment(R | X, 0x20_0000, &[0x90; 0x1234], 0x1234),
        segment(R | W, 0x20_2000, &[0x22; 0x1100], 0x9000),
    ];
    hermit_notes(ElfBuilder::new(0x20_0010, segments), 4, 1).build()
}

/// A relocation: where, of which kind, by which symbol, and what is added.
pub fn rela(offset: u64, kind: u64, symbol: u64, addend: u64) -> Vec<u8> {
    let words = [offset, kind | symbol << 32, addend];
    words.map(u64::to_le_bytes).concat()
}

/// A symbol: its section, whether it is weak, its address.
pub fn symbol(section: u16, weak: bool, value: u64) -> Vec<u8> {
    let mut symbol = vec![0, 0, 0, 0, if weak { 0x20 } else { 0x10 }, 0];
    symbol.extend(section.to_le_bytes());
    symbol.extend([value, 0].map(u64::to_le_bytes).as_flattened());
    symbol
}

/// The dynamic section of these relocations, with the symbols behind them.
pub fn dynamic(relas: &[Vec<u8>]) -> Vec<[u64; 2]> {
    let len = relas.concat().len() as u64;
    vec![
        [DT_RELA, RELA],
        [DT_RELASZ, len],
        [DT_RELAENT, 24],
        [DT_SYMTAB, RELA + len],
    ]
}

/// A guest that can lie anywhere.
pub fn hermit_pie(relas: &[Vec<u8>], symbols: &[Vec<u8>], dynamic: &[[u64; 2]]) -> Vec<u8> {
    let tables = [relas.concat(), symbols.concat()].concat();
    let mut data: Vec<u8> = dynamic
        .iter()
        .chain(&[[DT_NULL, 0]])
        .flat_map(|entry| entry.map(u64::to_le_bytes).concat())
        .collect();
    let dynamic_len = data.len() as u64;
    data.resize(0x1000, 0);
    let segments = vec![
        segment(R | X, 0, &[0x90; 0x1234], 0x1234),
        segment(R, RELA, &tables, tables.len().max(1) as u64),
        segment(R | W, DYNAMIC, &data, 0x9000),
        // Becomes the header of the dynamic section.
        segment(R | W, 0x10_0000, &[], dynamic_len),
    ];
    let mut image = hermit_notes(ElfBuilder::new(0x10, segments), 4, 1).build();
    image[16] = 3;
    let field = |image: &[u8], header: usize, at: usize| {
        let at = PROGRAM_HEADERS + 56 * header + at;
        u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
    };
    let offset = field(&image, 3, 8);
    let header = PROGRAM_HEADERS + 56 * 4;
    image[header] = 2;
    for (at, value) in [(8, offset), (16, DYNAMIC), (32, dynamic_len)] {
        image[header + at..header + at + 8].copy_from_slice(&value.to_le_bytes());
    }
    image
}
