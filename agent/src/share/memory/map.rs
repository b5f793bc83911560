//! The files that processes map: their layout, how they are made, and the only place that looks into mapped memory.
#![allow(unsafe_code)]

use crate::home::{give_to_owner, lock};
use crate::say;
use farcall::quota::{Cell, Shares};
use farcall::rollout::Canary;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// The map's file in the home directory.
const FILE: &str = "quota.map";
const MAGIC: u64 = u64::from_le_bytes(*b"farcallq");
/// Of the layout below; to be raised with any change of it, of [`Cell`] or of [`Shares`].
const VERSION: u64 = 2;

/// The file of the canaries. Unlike quotas they go on where they were after the machine's start: a variant that was
/// rolled back is no better since.
const CANARY_FILE: &str = "rollout.map";
const CANARY_MAGIC: u64 = u64::from_le_bytes(*b"farcallr");
/// Of the layout below; to be raised with any change of it or of [`Canary`].
const CANARY_VERSION: u64 = 1;
/// Canaries that fit.
pub(super) const CANARIES: usize = 64;
/// The header and the entries take up a page.
const CANARY_ENTRIES: usize = 128;
const CANARY_BLOCKS: usize = 4_096;
const CANARY_BYTES: usize = CANARY_BLOCKS + CANARIES * size_of::<Canary>();

/// Quotas that fit.
pub(super) const CELLS: usize = 4_096;
/// Of those, fair ones.
pub(super) const SHARES: usize = 64;

const ENTRY: usize = size_of::<Entry>();
/// After the header, on a line of its own.
const ANCHOR: usize = 128;
const CELL_ENTRIES: usize = 4_096;
const SHARE_ENTRIES: usize = CELL_ENTRIES + CELLS * ENTRY;
const CELL_BLOCKS: usize = SHARE_ENTRIES + SHARES * ENTRY;
const SHARE_BLOCKS: usize = CELL_BLOCKS + CELLS * size_of::<Cell>();
const BYTES: usize = SHARE_BLOCKS + SHARES * size_of::<Shares>();

const _: () = assert!(CELL_BLOCKS.is_multiple_of(align_of::<Cell>()));
const _: () = assert!(SHARE_BLOCKS.is_multiple_of(align_of::<Shares>()));
const _: () =
    assert!(CANARY_ENTRIES.is_multiple_of(32) && CANARY_ENTRIES + CANARIES * ENTRY <= CANARY_BLOCKS);
const _: () = assert!(size_of::<Canary>().is_multiple_of(8) && align_of::<Canary>() <= 4_096);
const _: () = assert!(size_of::<Cell>().is_multiple_of(8) && size_of::<Shares>().is_multiple_of(8));

/// Who has a place. Places are never emptied, only taken over.
#[derive(Debug)]
#[repr(C, align(32))]
pub(super) struct Entry {
    /// Whose it is; 0 for nobody's.
    pub(super) key: AtomicU64,
    /// When it was used last, in minutes since the Unix epoch.
    pub(super) used: AtomicU64,
    /// Which process asks the fleet for grants: `[number: 24][until, in milliseconds: 40]`.
    pub(super) leader: AtomicU64,
    spare: AtomicU64,
}

/// What a place belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Cells,
    Shares,
    Canaries,
}

impl Table {
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Cells => CELLS,
            Self::Shares => SHARES,
            Self::Canaries => CANARIES,
        }
    }
}

/// The mapped files. Each keeps its size for as long as it is mapped anywhere: nobody here shortens it, and it is
/// replaced by another file rather than changed.
#[derive(Debug)]
pub(super) struct Map {
    raw: MmapRaw,
    canaries: MmapRaw,
    shares_canaries: bool,
    host: u64,
}

impl Map {
    /// Maps the files of a home directory; makes them where there are none, or of another version, or (that of the
    /// quotas) of before the machine's last start.
    pub(super) fn open(home: &Path) -> io::Result<Self> {
        let path = home.join(FILE);
        let (raw, host) = match Self::quotas(&path)? {
            Some(known) => known,
            None => {
                DirBuilder::new().recursive(true).mode(0o700).create(home)?;
                let _lock = lock(home)?;
                // Another process may have made it since.
                match Self::quotas(&path)? {
                    Some(known) => known,
                    None => {
                        let host = RandomState::new().hash_one(std::process::id()).max(1);
                        (make(home, &path, BYTES, &header(host), |file| map_whole(file, BYTES))?, host)
                    }
                }
            }
        };
        // Quotas can be shared without canaries.
        let (canaries, shares_canaries) = match Self::canaries_of(home) {
            Ok(canaries) => (canaries, true),
            Err(error) => {
                let home = home.display();
                say::say(&format!(
                    "cannot share canaries with other processes through {home}: {error}; each weighs its own calls"
                ));
                (MmapOptions::new().len(CANARY_BYTES).map_anon()?.into(), false)
            }
        };
        Ok(Self { raw, canaries, shares_canaries, host })
    }

    /// Maps the canaries of a home directory alone, for somebody who looks at them, or writes them too; makes no file.
    /// `None` where there are none, or of another version.
    pub(super) fn of_canaries(home: &Path, write: bool) -> io::Result<Option<Self>> {
        let canaries = match write {
            true => Self::canaries(&home.join(CANARY_FILE))?,
            false => Self::known_canaries(&home.join(CANARY_FILE), false)?
                .map(|file| MmapOptions::new().len(CANARY_BYTES).map_raw_read_only(&file))
                .transpose()?,
        };
        let Some(canaries) = canaries else { return Ok(None) };
        // Quotas of nobody's, which nobody asks for.
        let raw = MmapOptions::new().len(BYTES).map_anon()?.into();
        Ok(Some(Self { raw, canaries, shares_canaries: true, host: 0 }))
    }

    /// Whether canaries lie where other processes see them.
    pub(super) const fn shares_canaries(&self) -> bool {
        self.shares_canaries
    }

    fn canaries_of(home: &Path) -> io::Result<MmapRaw> {
        let path = home.join(CANARY_FILE);
        if let Ok(Some(known)) = Self::canaries(&path) {
            return Ok(known);
        }
        let _lock = lock(home)?;
        match Self::canaries(&path)? {
            Some(known) => Ok(known),
            None => {
                let header = [CANARY_MAGIC, CANARY_VERSION, CANARY_BYTES as u64];
                make(home, &path, CANARY_BYTES, &header, |file| map_whole(file, CANARY_BYTES))
            }
        }
    }

    fn canaries(path: &Path) -> io::Result<Option<MmapRaw>> {
        let Some(file) = Self::known_canaries(path, true)? else { return Ok(None) };
        allocate(&file, CANARY_BYTES, false)?;
        map_whole(&file, CANARY_BYTES).map(Some)
    }

    /// The file of the canaries, where it is one of this version.
    fn known_canaries(path: &Path, write: bool) -> io::Result<Option<File>> {
        let file = match OpenOptions::new().read(true).write(write).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; 3 * 8];
        let whole =
            file.metadata()?.len() == CANARY_BYTES as u64 && file.read_exact_at(&mut bytes, 0).is_ok();
        let (words, _) = bytes.as_chunks::<8>();
        let header = [CANARY_MAGIC, CANARY_VERSION, CANARY_BYTES as u64];
        Ok((whole && words.iter().map(|word| u64::from_le_bytes(*word)).eq(header)).then_some(file))
    }

    fn quotas(path: &Path) -> io::Result<Option<(MmapRaw, u64)>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; 5 * 8];
        let whole = file.metadata()?.len() == BYTES as u64 && file.read_exact_at(&mut bytes, 0).is_ok();
        let (words, _) = bytes.as_chunks::<8>();
        let host = u64::from_le_bytes(words[4]);
        if !whole || words.iter().map(|word| u64::from_le_bytes(*word)).ne(header(host)) {
            return Ok(None);
        }
        // Where it has holes (a copy may), a full disk would kill whoever writes there.
        allocate(&file, BYTES, false)?;
        Ok(Some((map_whole(&file, BYTES)?, host)))
    }

    /// Stands for this machine among others.
    pub(super) const fn host(&self) -> u64 {
        self.host
    }

    /// How the clock that all calls of this host are told the time by stands to the monotonic one; 0 at first.
    pub(super) fn anchor(&self) -> &AtomicU64 {
        // SAFETY: within the first page, which has nothing else there, and aligned; an atomic for which every bit
        // pattern is valid. The map outlives `self`.
        unsafe { &*self.raw.as_ptr().add(ANCHOR).cast::<AtomicU64>() }
    }

    pub(super) fn entry(&self, table: Table, place: usize) -> &Entry {
        assert!(place < table.len());
        let (map, start) = match table {
            Table::Cells => (&self.raw, CELL_ENTRIES),
            Table::Shares => (&self.raw, SHARE_ENTRIES),
            Table::Canaries => (&self.canaries, CANARY_ENTRIES),
        };
        // SAFETY: the offset is within the map (place < len, checked above) and a multiple of 32 beyond a page's
        // beginning; `Entry` is nothing but atomics, for which every bit pattern is valid and which other
        // processes may change at any time. The map outlives `self`.
        unsafe { &*map.as_ptr().add(start + place * ENTRY).cast::<Entry>() }
    }

    pub(super) fn cell(&self, place: usize) -> &Cell {
        assert!(place < CELLS);
        // SAFETY: as for `entry`; `CELL_BLOCKS` and the size of a cell are multiples of its alignment (checked
        // above), and a `Cell` is sixteen atomics whose every bit pattern is valid.
        unsafe { &*self.raw.as_ptr().add(CELL_BLOCKS + place * size_of::<Cell>()).cast::<Cell>() }
    }

    pub(super) fn shares(&self, place: usize) -> &Shares {
        assert!(place < SHARES);
        // SAFETY: as for `cell`; `Shares` is nothing but atomics and their padding.
        unsafe { &*self.raw.as_ptr().add(SHARE_BLOCKS + place * size_of::<Shares>()).cast::<Shares>() }
    }

    pub(super) fn canary(&self, place: usize) -> &Canary {
        assert!(place < CANARIES);
        // SAFETY: as for `cell`; the blocks begin at a page, the size of a `Canary` is a multiple of its alignment, and
        // it is nothing but atomics and their padding.
        unsafe { &*self.canaries.as_ptr().add(CANARY_BLOCKS + place * size_of::<Canary>()).cast::<Canary>() }
    }

    /// The words of what a place holds, to be set to zero for whoever takes it over.
    pub(super) fn words(&self, table: Table, place: usize) -> &[AtomicU64] {
        assert!(place < table.len());
        let (map, start, size) = match table {
            Table::Cells => (&self.raw, CELL_BLOCKS, size_of::<Cell>()),
            Table::Shares => (&self.raw, SHARE_BLOCKS, size_of::<Shares>()),
            Table::Canaries => (&self.canaries, CANARY_BLOCKS, size_of::<Canary>()),
        };
        // SAFETY: within the map and aligned, as for `cell`; the block is only ever seen as atomics of 64 bits.
        unsafe {
            std::slice::from_raw_parts(map.as_ptr().add(start + place * size).cast::<AtomicU64>(), size / 8)
        }
    }
}

fn map_whole(file: &File, bytes: usize) -> io::Result<MmapRaw> {
    MmapOptions::new().len(bytes).map_raw(file)
}

/// A file of nothing but words, which processes map: for what is no quota.
#[derive(Debug)]
pub(crate) struct Words {
    raw: MmapRaw,
    count: usize,
}

impl Words {
    /// Its header, in words: what it is, of which version, how long, and the machine's last start.
    const HEADER: usize = 4;

    /// Maps a file of `count` words in the home directory; makes it, all zero, where there is none, or one of another
    /// kind or of before the machine's last start, after `anew`, which is called under the directory's lock.
    pub(crate) fn open(
        home: &Path,
        path: &Path,
        (magic, version): (u64, u64),
        count: usize,
        anew: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        let bytes = (Self::HEADER + count) * 8;
        let header = [magic, version, bytes as u64, boot()];
        if let Some(words) = Self::existing(path, header, count)? {
            return Ok(words);
        }
        let _lock = lock(home)?;
        if let Some(words) = Self::existing(path, header, count)? {
            return Ok(words);
        }
        anew()?;
        make(home, path, bytes, &header, |file| Self::of(file, count))
    }

    fn existing(path: &Path, header: [u64; Self::HEADER], count: usize) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; Self::HEADER * 8];
        let size = (Self::HEADER + count) * 8;
        let whole = file.metadata()?.len() == size as u64 && file.read_exact_at(&mut bytes, 0).is_ok();
        let (words, _) = bytes.as_chunks::<8>();
        if !whole || words.iter().map(|word| u64::from_le_bytes(*word)).ne(header) {
            return Ok(None);
        }
        allocate(&file, size, false)?;
        Self::of(&file, count).map(Some)
    }

    fn of(file: &File, count: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().len((Self::HEADER + count) * 8).map_raw(file)?;
        Ok(Self { raw, count })
    }

    /// The word at a place.
    pub(crate) fn word(&self, place: usize) -> &AtomicU64 {
        assert!(place < self.count);
        // SAFETY: within the map (checked above) and aligned, which a map's beginning is; an atomic for which every bit
        // pattern is valid and which other processes may change at any time. The map outlives `self`, and nobody
        // shortens the file.
        unsafe { &*self.raw.as_ptr().cast::<AtomicU64>().add(Self::HEADER + place) }
    }
}

/// Makes a file of so many bytes that begins with these words and is zero otherwise. It is complete before it gets its
/// name: a process that dies here leaves nothing that others would map.
fn make<T>(
    home: &Path,
    path: &Path,
    bytes: usize,
    header: &[u64],
    map: impl FnOnce(&File) -> io::Result<T>,
) -> io::Result<T> {
    let new = path.with_extension("map.new");
    let _ = fs::remove_file(&new);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
    let made = allocate(&file, bytes, true).and_then(|()| {
        let words: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        file.write_all_at(&words, 0)?;
        give_to_owner(home, &new);
        fs::rename(&new, path)?;
        map(&file)
    });
    if made.is_err() {
        let _ = fs::remove_file(&new);
    }
    made
}

fn header(host: u64) -> [u64; 5] {
    [MAGIC, VERSION, BYTES as u64, boot(), host]
}

/// Stands for the machine's last start: what was under way before it is over.
fn boot() -> u64 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// Takes the file's room on the disk, so that no write into the map can fail.
fn allocate(file: &File, bytes: usize, new: bool) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(file, FallocateFlags::empty(), 0, bytes as u64) {
            Ok(()) => return Ok(()),
            // Not on every file system.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if new {
        let mut file = file;
        file.write_all(&vec![0; bytes])?;
    }
    Ok(())
}
