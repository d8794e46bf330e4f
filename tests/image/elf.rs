//! What an image needs to know of an executable.

/// Program header that names a dynamic loader. Source: elf(5), `PT_INTERP`.
const INTERPRETER: u32 = 3;

/// Whether a 64-bit little-endian ELF executable runs without a loader and so without libraries.
///
/// # Errors
/// Where it is no such executable; an image of it would not start.
pub(crate) fn is_static(program: &[u8]) -> Result<bool, String> {
    let cut = || "the program is cut off".to_owned();
    let number = |at: usize, length: usize| -> Result<usize, String> {
        let bytes = program.get(at..at.saturating_add(length)).ok_or_else(cut)?;
        let number = bytes.iter().rev().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        usize::try_from(number).map_err(|_| cut())
    };
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return Err("the program is no 64-bit little-endian ELF executable".to_owned());
    }
    // Elf64_Ehdr: e_phoff, e_phentsize, e_phnum.
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for at in 0..count {
        if number(table.saturating_add(at * size), 4)? == INTERPRETER as usize {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a text stands anywhere in the program.
pub(crate) fn contains(program: &[u8], text: &str) -> bool {
    !text.is_empty() && program.windows(text.len()).any(|part| part == text.as_bytes())
}
