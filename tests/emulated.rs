//! An emulated device with a test's own kernels, driven directly: memory by bytes, arguments by words.

use omr::device::emu::{Emu, Options};
use omr::device::{Address, Driver, Launch, Stream};
use omr::error::Result;

use crate::kernels::emulator_alone;

/// Bytes of device memory a test may fill.
const MEMORY: usize = 1 << 26;

/// A device and what of its memory is taken.
pub struct Emulated {
    /// Its driver.
    pub emu: Emu,
    free: Address,
}

impl Emulated {
    /// A device with one more kernel file, as `("kernels/NAME.cu", text)`.
    /// Panics where a card is tested.
    pub fn new(source: (&str, &str), options: Options) -> Emulated {
        emulator_alone("a device of a test's own kernels");
        let sources = vec![(source.0.to_owned(), source.1.to_owned())];
        let mut emu = Emu::new(Options { sources, ..options }).unwrap();
        let free = emu.map(MEMORY).unwrap();
        Emulated { emu, free }
    }

    /// A buffer that ends where its guard page begins, with these contents. A multiple of 16 keeps it aligned.
    pub fn put(&mut self, bytes: &[u8]) -> Address {
        let page = self.emu.guard().max(1);
        let whole = bytes.len().next_multiple_of(page);
        let address = self.free + (whole - bytes.len()) as Address;
        self.emu.open(address, bytes.len()).unwrap();
        self.free += (whole + page) as Address;
        self.emu.upload(Stream::COMPUTE, address, bytes).unwrap();
        address
    }

    /// A buffer of 32-bit words.
    pub fn put_words(&mut self, words: &[u32]) -> Address {
        self.put(bytemuck::cast_slice(words))
    }

    /// What a buffer holds after all launches.
    pub fn get_words(&mut self, address: Address, words: usize) -> Result<Vec<u32>> {
        let mut found = vec![0; words];
        self.emu.download(Stream::COMPUTE, address, bytemuck::cast_slice_mut(&mut found))?;
        Ok(found)
    }

    /// Launches a kernel whose arguments are all of 8 bytes, and waits.
    pub fn run(&mut self, file: &'static str, name: &'static str, launch: Launch, args: &[u64]) -> Result<()> {
        let kernel = self.emu.kernel(file, name)?;
        self.emu.launch(Stream::COMPUTE, kernel, &launch, bytemuck::cast_slice(args))?;
        self.emu.synchronize(Stream::COMPUTE)
    }
}
