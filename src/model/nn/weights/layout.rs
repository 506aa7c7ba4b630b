//! The list of a model's parameters, and how parameters are added to it.

use super::linear_layer::{Adapter, Linear, Matrix, Vector};
use super::params::{Param, Piece, RowBlocks};
use super::part::{Init, Part};
use omr_base::config::QuantizationConfig;
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::matmul::{Order, PANEL};
use omr_runtime::ops::quantized::{self, Quantized, scale_dtype};
use omr_runtime::tensor::{DType, Tensor};

/// The parameters of a model, in the order in which gradients are summed and updates are made.
#[derive(Clone, PartialEq, Debug)]
pub struct ParamLayout {
    /// The parameters. A [`Matrix`] or [`Vector`] refers to one by its index.
    pub params: Vec<Param>,
    /// Data type of the weights.
    pub dtype: DType,
    /// The adapters of linear layers. While there are any, all other parameters are frozen.
    pub adapters: Vec<Adapter>,
    /// Storage of the matrices of linear layers in 8 or 4 bits.
    pub quantization: Option<QuantizationConfig>,
}

impl ParamLayout {
    /// Creates a layout without parameters.
    pub fn new(dtype: DType) -> ParamLayout {
        ParamLayout { params: Vec::new(), dtype, adapters: Vec::new(), quantization: None }
    }

    /// Returns the layout for adding parameters of `part`.
    pub fn within(&mut self, part: Part) -> LayoutPart<'_> {
        LayoutPart { layout: self, part }
    }

    /// Returns every Hugging Face tensor with the index of its parameter and the index of its piece.
    pub fn pieces<'a>(&'a self) -> impl Iterator<Item = (usize, usize, &'a Piece)> {
        let pieces_of =
            |(i, param): (usize, &'a Param)| param.pieces.iter().enumerate().map(move |(j, piece)| (i, j, piece));
        self.params.iter().enumerate().flat_map(pieces_of)
    }

    /// Returns the bucket, as a number, and the number of elements of each parameter, as [`Shards::new`] takes them.
    ///
    /// [`Shards::new`]: omr_runtime::ranks::Shards::new
    pub fn shares(&self) -> Vec<(usize, usize)> {
        let mut bucket = 0;
        let share = |(i, param): (usize, &Param)| {
            bucket += usize::from(i > 0 && self.params[i - 1].part.bucket() != param.part.bucket());
            (bucket, param.tensor.len())
        };
        self.params.iter().enumerate().map(share).collect()
    }

    /// Returns true if the matrix of the module with this released name is quantised.
    pub fn is_quantized(&self, module: &str) -> bool {
        let is_it = |name: &str| name.strip_suffix(".weight") == Some(module);
        self.pieces().any(|(id, _, piece)| is_it(&piece.name) && self.params[id].quantized.is_some())
    }

    /// Returns the number of elements of each parameter, including padding.
    pub fn lens(&self) -> Vec<usize> {
        self.params.iter().map(|param| param.tensor.len()).collect()
    }

    /// Returns the number of weights, without padding.
    pub fn num_weights(&self) -> usize {
        self.pieces().map(|(_, _, piece)| piece.num_elements()).sum()
    }
}

/// A layout to which parameters of one part are added.
pub struct LayoutPart<'a> {
    layout: &'a mut ParamLayout,
    part: Part,
}

impl LayoutPart<'_> {
    /// Adds a matrix `[n, k]` that consists of `pieces`, filled with zeros.
    pub fn matrix(&mut self, dev: &mut Device, n: usize, k: usize, pieces: Vec<Piece>) -> Result<Matrix> {
        self.matrix_in(dev, Order::of(dev), n, k, pieces)
    }

    /// Adds the matrix of a linear layer as [`LayoutPart::matrix`] does, quantised if the settings of the layout say so.
    pub fn linear_matrix(&mut self, dev: &mut Device, n: usize, k: usize, pieces: Vec<Piece>) -> Result<Matrix> {
        let Some(settings) = self.layout.quantization.as_ref().filter(|settings| takes(settings, &pieces)) else {
            return self.matrix(dev, n, k, pieces);
        };
        let (format, order, dtype) = (settings.base, Order::of(dev), self.layout.dtype);
        let (layout, units) = order.quantized(format, n, k);
        let data = dev.zeros(Region::Weights, DType::U8, &[units * layout.codes()])?;
        let scales = dev.zeros(Region::Weights, scale_dtype(format), &[units * layout.scales()])?;
        let quantized = Some(Quantized { format, scales, dtype });
        let param = Param { is_matrix: true, quantized, order, n, k, ..self.param(pieces, data, Init::Normal) };
        let weight = param.weight();
        Ok(Matrix { id: self.push(param), weight })
    }

    /// Adds a matrix as [`LayoutPart::matrix`] does, with the given element order.
    pub fn matrix_in(
        &mut self,
        dev: &mut Device,
        order: Order,
        n: usize,
        k: usize,
        pieces: Vec<Piece>,
    ) -> Result<Matrix> {
        let dtype = self.layout.dtype;
        let data = dev.zeros(Region::Weights, dtype, &[order.len(dtype, n, k)])?;
        let param = self.param(pieces, data, Init::Normal);
        let param = Param { is_matrix: true, order, n, k, ..param };
        let weight = param.weight();
        Ok(Matrix { id: self.push(param), weight })
    }

    /// Adds a bias `[n]` that consists of `pieces`, filled with zeros.
    pub fn bias(&mut self, dev: &mut Device, n: usize, pieces: Vec<Piece>) -> Result<Vector> {
        self.vector(dev, n, pieces, Init::Zeros)
    }

    fn vector(&mut self, dev: &mut Device, n: usize, pieces: Vec<Piece>, init: Init) -> Result<Vector> {
        let tensor = dev.zeros(Region::Weights, self.layout.dtype, &[n])?;
        let param = self.param(pieces, tensor, init);
        Ok(Vector { id: self.push(Param { order: Order::of(dev), n, ..param }), tensor })
    }

    /// Adds a linear layer `[n, k]` with the name `name`, and a bias if `has_bias` is true. `file` is the size in the file;
    /// further rows and columns are padding.
    pub fn linear(
        &mut self,
        dev: &mut Device,
        name: &str,
        [n, k]: [usize; 2],
        file: [usize; 2],
        has_bias: bool,
    ) -> Result<Linear> {
        let weight = self.linear_matrix(dev, n, k, vec![Piece::rows(format!("{name}.weight"), &file, 0)])?;
        let bias = || self.bias(dev, n, vec![Piece::rows(format!("{name}.bias"), &file[..1], 0)]);
        let bias = has_bias.then(bias).transpose()?;
        Ok(Linear { weight, bias, adapter: None })
    }

    /// Adds `{name}.gate_proj` and `{name}.up_proj` of an MLP, each `[f, k]`, as one layer with alternating blocks of
    /// rows.
    pub fn gate_up(&mut self, dev: &mut Device, name: &str, f: usize, k: usize, bias: bool) -> Result<Linear> {
        let n = 2 * f.next_multiple_of(PANEL);
        let pieces = |what: &str, shape: &[usize]| {
            let rows = |i| RowBlocks { from: i * PANEL, len: PANEL, stride: 2 * PANEL };
            let piece = |(i, which): (_, &str)| Piece::blocks(format!("{name}.{which}_proj.{what}"), shape, rows(i));
            ["gate", "up"].into_iter().enumerate().map(piece).collect()
        };
        let weight = self.linear_matrix(dev, n, k, pieces("weight", &[f, k]))?;
        let bias = if bias { Some(self.bias(dev, n, pieces("bias", &[f]))?) } else { None };
        Ok(Linear { weight, bias, adapter: None })
    }

    /// Adds the weights `[n]` of a norm.
    pub fn norm(&mut self, dev: &mut Device, name: &str, n: usize) -> Result<Vector> {
        self.vector(dev, n, vec![Piece::rows(format!("{name}.weight"), &[n], 0)], Init::Ones)
    }

    fn param(&self, pieces: Vec<Piece>, tensor: Tensor, init: Init) -> Param {
        let (part, order) = (self.part, Order::Rows);
        Param {
            pieces,
            tensor,
            quantized: None,
            part,
            init,
            is_adapter: false,
            is_matrix: false,
            trains: true,
            order,
            n: 1,
            k: 1,
        }
    }

    fn push(&mut self, param: Param) -> usize {
        self.layout.params.push(param);
        self.layout.params.len() - 1
    }
}

/// Returns true if the matrix of `pieces` is quantised with these settings.
fn takes(settings: &QuantizationConfig, pieces: &[Piece]) -> bool {
    let fits = |piece: &Piece| quantized::takes(settings.base, piece.row_len());
    pieces.iter().all(|piece| fits(piece) && !settings.skips(&piece.name))
}
