//! Tensors: handles that refer to a device's memory regions. A [`Tensor`] owns nothing, is contiguous and row-major,
//! and is `Copy`. The only views are slices of the first dimension and reshapes (`docs/dev/design/runtime.md`).

mod dtype;

pub use dtype::{DType, Elem};

use std::fmt;

use crate::device::{Device, On, Param, Params, Region, Span, View, ViewMut};
use omr_base::error::Result;

/// Shape of a tensor with one to four dimensions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// Creates a shape from its dimensions (one to four).
    pub fn new(dims: &[usize]) -> Shape {
        assert!((1..=4).contains(&dims.len()), "a shape has one to four dimensions, not {}", dims.len());
        let mut d = [1; 4];
        d[..dims.len()].copy_from_slice(dims);
        Shape { dims: d, rank: dims.len() }
    }
}

impl std::ops::Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A contiguous row-major array in a device's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tensor {
    /// Region that contains the tensor.
    pub region: Region,
    /// First byte inside the region.
    pub offset: usize,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Shape,
}

impl Tensor {
    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns true if a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of rows: the first dimension.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Returns the number of columns: the product of all dimensions except the first.
    pub fn cols(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Returns the bytes that the tensor covers.
    pub fn span(&self) -> Span {
        Span { region: self.region, offset: self.offset, bytes: self.len() * self.dtype.size() }
    }

    /// Returns the rows `from..to`, a view.
    pub fn slice(&self, from: usize, to: usize) -> Tensor {
        assert!(from <= to && to <= self.rows(), "rows {from}..{to} of {:?}", self.shape);
        let mut shape = self.shape;
        shape.dims[0] = to - from;
        Tensor { offset: self.offset + from * self.cols() * self.dtype.size(), shape, ..*self }
    }

    /// Returns the same elements with another shape. Panics if the number of elements differs.
    pub fn reshape(&self, dims: &[usize]) -> Tensor {
        let shape = Shape::new(dims);
        assert_eq!(shape.iter().product::<usize>(), self.len(), "reshape {:?} to {shape:?}", self.shape);
        Tensor { shape, ..*self }
    }
}

/// Allocates, writes, copies and reads tensors.
impl Device {
    /// Allocates a tensor on top of `region`'s stack. Its content is undefined.
    pub fn alloc(&mut self, region: Region, dtype: DType, dims: &[usize]) -> Result<Tensor> {
        let shape = Shape::new(dims);
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let span = self.take(region, bytes)?;
        Ok(Tensor { region, offset: span.offset, dtype, shape })
    }

    /// Allocates as [`Device::alloc`] does and sets every byte to zero.
    pub fn zeros(&mut self, region: Region, dtype: DType, dims: &[usize]) -> Result<Tensor> {
        let touched = self.on_cpu().map(|cpu| cpu.memory.touched(region));
        let t = self.alloc(region, dtype, dims)?;
        // New memory of the CPU is zero. Only the first write creates its pages.
        if touched.is_none_or(|touched| t.offset < touched) {
            self.fill_zero(t)?;
        }
        Ok(t)
    }

    /// Sets every byte to zero.
    pub fn fill_zero(&mut self, t: Tensor) -> Result<()> {
        match self.on() {
            On::Count => {}
            On::Cpu(cpu) => cpu.memory.view_mut(t.span()).of::<u8>().fill(0),
            On::Gpu(gpu) => gpu.driver.fill(gpu.stream, gpu.memory.address(t.span()), 0, t.span().bytes)?,
        }
        Ok(())
    }

    /// Allocates a tensor and copies host elements into it. A device that only counts performs only the allocation.
    pub fn upload<T: Elem>(&mut self, region: Region, data: &[T], dims: &[usize]) -> Result<Tensor> {
        let t = self.alloc(region, T::DTYPE, dims)?;
        self.write(t, data)?;
        Ok(t)
    }

    /// Overwrites a tensor with elements from the host. Panics if the length or the type differs.
    pub fn write<T: Elem>(&mut self, t: Tensor, data: &[T]) -> Result<()> {
        assert_eq!((t.dtype, t.len()), (T::DTYPE, data.len()), "write to {t:?}");
        self.write_bytes(t, bytemuck::cast_slice(data))
    }

    /// Overwrites a tensor with bytes from the host, as [`Device::write`] does, without a check of the type.
    pub fn write_bytes(&mut self, t: Tensor, bytes: &[u8]) -> Result<()> {
        assert_eq!(t.span().bytes, bytes.len(), "bytes to {t:?}");
        match self.on() {
            On::Count => {}
            On::Cpu(cpu) => cpu.memory.view_mut(t.span()).of::<u8>().copy_from_slice(bytes),
            On::Gpu(gpu) => gpu.driver.upload(gpu.stream, gpu.memory.address(t.span()), bytes)?,
        }
        Ok(())
    }

    /// Overwrites `to` with the elements of `from`, which must not overlap it. Panics if types or lengths differ.
    pub fn copy(&mut self, from: Tensor, to: Tensor) -> Result<()> {
        assert_eq!((from.dtype, from.len()), (to.dtype, to.len()), "copy of {from:?} to {to:?}");
        match self.on() {
            On::Count => {}
            On::Cpu(cpu) => {
                let ([to], [from]) = cpu.memory.tensors([to], [from]);
                to.of::<u8>().copy_from_slice(from.of::<u8>());
            }
            On::Gpu(gpu) => {
                let (at, bytes) = (gpu.memory.address(from.span()), from.span().bytes);
                gpu.driver.copy(gpu.stream, gpu.memory.address(to.span()), at, bytes)?;
            }
        }
        Ok(())
    }

    /// Copies a tensor to the host as bytes, as [`Device::read`] does, without a check of the type.
    pub fn read_bytes(&mut self, t: Tensor) -> Result<Vec<u8>> {
        self.read_as(t)
    }

    /// Copies a tensor to the host. On a GPU, waits for the copy. A device that only counts returns zeros. Panics if
    /// the type differs.
    pub fn read<T: Elem>(&mut self, t: Tensor) -> Result<Vec<T>> {
        assert_eq!(t.dtype, T::DTYPE, "read of {t:?}");
        self.read_as(t)
    }

    fn read_as<T: bytemuck::Pod>(&mut self, t: Tensor) -> Result<Vec<T>> {
        let zeros = || vec![T::zeroed(); t.span().bytes / size_of::<T>()];
        Ok(match self.on() {
            On::Count => zeros(),
            On::Cpu(cpu) => cpu.memory.view(t.span()).of::<T>().to_vec(),
            On::Gpu(gpu) => {
                let mut out = zeros();
                let from = gpu.memory.address(t.span());
                gpu.driver.download(gpu.stream, from, bytemuck::cast_slice_mut(&mut out))?;
                out
            }
        })
    }
}

/// Device addresses of tensors.
impl crate::device::Gpu<'_> {
    /// Returns the device address of a tensor.
    pub fn ptr(&self, t: Tensor) -> u64 {
        self.memory.address(t.span())
    }
}

/// Passes a tensor's device address.
impl Param for Tensor {
    fn append(self, params: &mut Params) {
        params.append_address(self.span());
    }
}

/// Passes a tensor's device address, or 0 (the null pointer) for `None`.
impl Param for Option<Tensor> {
    fn append(self, params: &mut Params) {
        match self {
            Some(tensor) => tensor.append(params),
            None => 0u64.append(params),
        }
    }
}

/// Views of tensors, for ops on the CPU.
impl crate::device::Memory {
    /// Returns writable and readable views at once; see [`crate::device::Memory::views`].
    pub fn tensors<const O: usize, const I: usize>(
        &mut self,
        outs: [Tensor; O],
        ins: [Tensor; I],
    ) -> ([ViewMut<'_>; O], [View<'_>; I]) {
        self.views(outs.map(|t| t.span()), ins.map(|t| t.span()))
    }
}
