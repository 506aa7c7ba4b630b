//! An emulated device with a test's own kernels, controlled directly: memory in bytes, arguments in words.

use omr_base::error::Result;
use omr_runtime::device::emu::{Emu, Options};
use omr_runtime::device::{Address, Driver, Launch, Stream};

use crate::kernels::emulator_alone;

/// Bytes of device memory that a test may use.
const MEMORY: usize = 1 << 26;

/// An emulated device, and the part of its memory that is in use.
pub struct Emulated {
    /// Driver of the emulated device.
    pub emu: Emu,
    free: Address,
}

impl Emulated {
    /// Creates a device with one additional kernel file, given as `("kernels/NAME.cu", text)`. Panics if the tests run
    /// on a GPU.
    pub fn new(source: (&str, &str), options: Options) -> Emulated {
        emulator_alone("a device of a test's own kernels");
        let sources = vec![(source.0.to_owned(), source.1.to_owned())];
        let mut emu = Emu::new(Options { sources, ..options }).unwrap();
        let free = emu.map(MEMORY).unwrap();
        Emulated { emu, free }
    }

    /// Creates a buffer with these contents that ends at its guard page. It is aligned if its size is a multiple of 16.
    pub fn put(&mut self, bytes: &[u8]) -> Address {
        let page = self.emu.guard().max(1);
        let whole = bytes.len().next_multiple_of(page);
        let address = self.free + (whole - bytes.len()) as Address;
        self.emu.open(address, bytes.len()).unwrap();
        self.free += (whole + page) as Address;
        self.emu.upload(Stream::COMPUTE, address, bytes).unwrap();
        address
    }

    /// Creates a buffer of 32-bit words.
    pub fn put_words(&mut self, words: &[u32]) -> Address {
        self.put(bytemuck::cast_slice(words))
    }

    /// Returns the contents of a buffer after all launches.
    pub fn get_words(&mut self, address: Address, words: usize) -> Result<Vec<u32>> {
        let mut found = vec![0; words];
        self.emu.download(Stream::COMPUTE, address, bytemuck::cast_slice_mut(&mut found))?;
        Ok(found)
    }

    /// Launches a kernel whose arguments all have 8 bytes, and waits for it.
    pub fn run(&mut self, file: &'static str, name: &'static str, launch: Launch, args: &[u64]) -> Result<()> {
        let kernel = self.emu.kernel(file, name)?;
        self.emu.launch(Stream::COMPUTE, kernel, &launch, bytemuck::cast_slice(args))?;
        self.emu.synchronize(Stream::COMPUTE)
    }
}
