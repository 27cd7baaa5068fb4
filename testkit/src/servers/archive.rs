//! Unpacks the PostgreSQL archive that Maven brings: a jar (zip) with one `.txz` (tar, xz) in it.
//!
//! Promises: links and modes are kept. Must not: write outside the target (`tar` refuses such
//! names). Fails: `Archive` when the file is not what it should be.

use crate::servers::error::EmbeddedError;
use std::fs::File;
use std::io::{BufReader, Cursor, Read as _};
use std::path::Path;

/// Unpacks the `.txz` inside `jar` into `target`.
pub(super) fn unpack_jar(jar: &Path, target: &Path) -> Result<(), EmbeddedError> {
    let damaged = |reason: String| EmbeddedError::Archive { path: jar.to_path_buf(), reason };
    let compressed = read_inner(jar)?;
    let mut plain = Vec::new();
    lzma_rs::xz_decompress(&mut BufReader::new(Cursor::new(compressed)), &mut plain)
        .map_err(|error| damaged(error.to_string()))?;
    tar::Archive::new(Cursor::new(plain)).unpack(target).map_err(|error| damaged(error.to_string()))
}

fn read_inner(jar: &Path) -> Result<Vec<u8>, EmbeddedError> {
    let damaged = |reason: String| EmbeddedError::Archive { path: jar.to_path_buf(), reason };
    let file = File::open(jar).map_err(|source| EmbeddedError::system("open", jar, source))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(error.to_string()))?;
    let place = (0..archive.len())
        .find(|&place| {
            let entry = archive.by_index(place);
            entry.is_ok_and(|entry| entry.name().is_ok_and(|name| name.ends_with(".txz")))
        })
        .ok_or_else(|| damaged("it holds no .txz".to_owned()))?;
    let mut entry = archive.by_index(place).map_err(|error| damaged(error.to_string()))?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| damaged(error.to_string()))?;
    Ok(bytes)
}
