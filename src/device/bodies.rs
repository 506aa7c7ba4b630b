//! Which body products and attention run by on a GPU.

use super::backend::{Backend, Device};
use super::body::Body;
use crate::error::{Error, Result};

impl Device {
    /// Runs linear layers, their gradients and logits by `wanted` from here on: a run has one. Errors where the device
    /// lacks it.
    pub fn use_body(&mut self, wanted: Body) -> Result<()> {
        let has = wanted == Body::Mma || self.has_wgmma();
        match &mut self.backend {
            Backend::Gpu { body, .. } if has => {
                *body = wanted;
                Ok(())
            }
            Backend::Gpu { refused: true, .. } => Err(Error::Failed("wgmma on a card whose products disagree".into())),
            Backend::Gpu { driver, .. } => {
                let (major, minor) = driver.properties().compute_capability;
                Err(Error::Failed(format!("wgmma on compute capability {major}.{minor}: 9.0 has it")))
            }
            _ => Err(Error::Failed(format!("{} on a device that is no GPU", wanted.name()))),
        }
    }

    /// Whether products can run by wgmma.
    pub fn has_wgmma(&self) -> bool {
        matches!(&self.backend, Backend::Gpu { driver, refused: false, .. } if driver.properties().compute_capability == (9, 0))
    }

    /// From here on products cannot run by wgmma: they were found to disagree.
    pub fn refuse_wgmma(&mut self) {
        if let Backend::Gpu { body, refused, .. } = &mut self.backend {
            (*body, *refused) = (Body::Mma, true);
        }
    }

    /// From here on attention runs by mma.sync whatever products run by: it was found to have other bits.
    pub fn refuse_wgmma_attention(&mut self) {
        if let Backend::Gpu { attention_refused, .. } = &mut self.backend {
            *attention_refused = true;
        }
    }

    /// The same of attention's backward alone.
    pub fn refuse_wgmma_attention_bwd(&mut self) {
        if let Backend::Gpu { attention_bwd_refused, .. } = &mut self.backend {
            *attention_bwd_refused = true;
        }
    }

    /// How matrix products run on a GPU; none elsewhere.
    pub fn body(&self) -> Option<Body> {
        match self.backend {
            Backend::Gpu { body, .. } => Some(body),
            _ => None,
        }
    }
}
