//! Device memory of the emulator: reserved pages that become accessible when a tensor is placed and inaccessible when
//! the tensor is released.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

use memmap2::{MmapMut, MmapOptions};

use crate::device::driver::Address;
use omr_base::error::{Error, Result};

/// Page size of the host, the unit of protection.
pub const PAGE: u64 = 4096;

/// Byte value of memory that was never written: NaN as bf16 and f32, -1 as an index.
pub const POISON: u8 = 0xFF;

/// `PROT_NONE` and `PROT_READ | PROT_WRITE` of POSIX.
const CLOSED: c_int = 0;
const OPEN: c_int = 3;

unsafe extern "C" {
    fn mprotect(page: *mut c_void, bytes: usize, protection: c_int) -> c_int;
}

/// Memory mappings, and the tensors whose pages are accessible.
#[derive(Default)]
pub struct Pages {
    maps: Vec<MmapMut>,
    /// End address of each accessible tensor, by its start address.
    open: BTreeMap<Address, Address>,
}

impl Pages {
    /// Reserves `wanted` bytes, followed by one inaccessible page. If `guarded` is true, the bytes are inaccessible
    /// until [`Pages::open()`]. Otherwise they are accessible as one zero-filled tensor.
    pub fn map(&mut self, wanted: usize, guarded: bool) -> Result<Address> {
        let bytes = wanted.next_multiple_of(PAGE as usize) + PAGE as usize;
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon();
        let map = map.map_err(|e| Error::Failed(format!("reserving {bytes} bytes for the emulator: {e}")))?;
        let base = map.as_ptr() as Address;
        self.maps.push(map);
        let reached = if guarded { 0 } else { bytes - PAGE as usize };
        self.protect(base + reached as u64, bytes - reached, CLOSED)?;
        if !guarded {
            self.open.insert(base, base + wanted as u64);
        }
        Ok(base)
    }

    /// Makes the pages of a tensor accessible and poisons them.
    pub fn open(&mut self, address: Address, bytes: usize) -> Result<()> {
        let Some((from, to)) = self.whole(address, bytes)? else { return Ok(()) };
        let len = (to - from) as usize;
        self.protect(from, len, OPEN)?;
        self.open.insert(address, address + bytes as u64);
        // SAFETY: the pages are in a mapping (checked above) and are accessible now; no reference covers them.
        unsafe { std::ptr::write_bytes(from as *mut u8, POISON, len) };
        Ok(())
    }

    /// Makes every page of the range inaccessible.
    pub fn close(&mut self, address: Address, bytes: usize) -> Result<()> {
        let Some((from, to)) = self.whole(address, bytes)? else { return Ok(()) };
        let gone: Vec<Address> = self.open.range(from..to).map(|(start, _)| *start).collect();
        for start in gone {
            self.open.remove(&start);
        }
        self.protect(from, (to - from) as usize, CLOSED)
    }

    fn protect(&self, page: Address, bytes: usize, protection: c_int) -> Result<()> {
        // SAFETY: the range consists of complete pages of one of `maps`, and no slice of them is borrowed.
        let status = unsafe { mprotect(page as *mut c_void, bytes, protection) };
        let cause = || std::io::Error::last_os_error();
        if status == 0 { Ok(()) } else { Err(Error::Failed(format!("protecting {bytes} bytes: {}", cause()))) }
    }

    /// Rounds the range out to complete pages. Returns `None` if it is empty. Errors if no mapping contains it.
    fn whole(&self, address: Address, bytes: usize) -> Result<Option<(Address, Address)>> {
        if bytes == 0 {
            return Ok(None);
        }
        let (from, to) = (address / PAGE * PAGE, (address + bytes as u64).next_multiple_of(PAGE));
        let held = self.maps.iter().any(|map| {
            let base = map.as_ptr() as Address;
            base <= from && to <= base + map.len() as u64
        });
        let outside = || Error::Failed(format!("{bytes} bytes at {address:#x} are outside the device's memory"));
        if held { Ok(Some((from, to))) } else { Err(outside()) }
    }

    /// Returns a pointer to `bytes` accessible bytes. Errors if some of them were never allocated, were released, or
    /// are past the end of a tensor.
    fn pointer(&self, address: Address, bytes: usize) -> Result<*mut u8> {
        if bytes == 0 {
            return Ok(std::ptr::dangling_mut());
        }
        match self.open.range(..=address).next_back() {
            Some((_, end)) if address + bytes as u64 <= *end => Ok(address as *mut u8),
            Some((_, end)) if address < *end => {
                let past = address + bytes as u64 - end;
                Err(Error::Failed(format!("{bytes} bytes at {address:#x}: {past} are past the tensor's end")))
            }
            _ => Err(Error::Failed(format!(
                "{bytes} bytes at {address:#x}: no tensor at this address, or it was released"
            ))),
        }
    }

    /// Describes the position of an address that a kernel could not access, relative to the tensors in this memory.
    pub fn describe(&self, address: Address) -> Option<String> {
        let size = |start: Address, end: Address| format!("a tensor of {} bytes", end - start);
        if let Some((start, end)) = self.open.range(..=address).next_back()
            && address < end.next_multiple_of(PAGE) + PAGE
        {
            return Some(format!("{} bytes past the end of {}", address - end.min(&address), size(*start, *end)));
        }
        if let Some((start, end)) = self.open.range(address..).next()
            && start - address <= 2 * PAGE
        {
            return Some(format!("{} bytes before {}", start - address, size(*start, *end)));
        }
        self.whole(address, 1).is_ok().then(|| "memory that was released or never allocated".into())
    }

    /// Copies from the host.
    pub fn write(&mut self, to: Address, from: &[u8]) -> Result<()> {
        let to = self.pointer(to, from.len())?;
        // SAFETY: `to` points to `from.len()` accessible bytes, and no reference to these bytes exists.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    /// Copies to the host.
    pub fn read(&self, from: Address, to: &mut [u8]) -> Result<()> {
        let from = self.pointer(from, to.len())?;
        // SAFETY: `from` points to `to.len()` accessible bytes, and no reference to these bytes exists.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies inside the device. Errors if the ranges overlap, because the result on a real GPU is undefined.
    pub fn copy(&mut self, to: Address, from: Address, bytes: usize) -> Result<()> {
        if to < from + bytes as u64 && from < to + bytes as u64 {
            return Err(Error::Failed(format!("a copy of {bytes} bytes overlaps itself")));
        }
        let (to, from) = (self.pointer(to, bytes)?, self.pointer(from, bytes)?);
        // SAFETY: both ranges have `bytes` accessible bytes and do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
        Ok(())
    }

    /// Sets every byte.
    pub fn fill(&mut self, to: Address, value: u8, bytes: usize) -> Result<()> {
        let to = self.pointer(to, bytes)?;
        // SAFETY: `to` points to `bytes` accessible bytes.
        unsafe { std::ptr::write_bytes(to, value, bytes) };
        Ok(())
    }
}
