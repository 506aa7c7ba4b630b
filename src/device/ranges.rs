//! Named ranges of a device's work, for profilers.

use std::fmt;

use super::backend::{Backend, Device};

impl Device {
    /// Runs `work` in a range that profilers show as `name`: the name is made only while one records.
    pub fn range<R>(&mut self, name: fmt::Arguments<'_>, work: impl FnOnce(&mut Device) -> R) -> R {
        let before = self.open_ranges();
        self.open_range(name);
        let done = work(self);
        // An error inside may have left ranges of its own open.
        while self.open_ranges() > before {
            self.close_range();
        }
        done
    }

    /// True while somebody records ranges.
    pub fn records_ranges(&self) -> bool {
        matches!(&self.backend, Backend::Gpu { driver, .. } if driver.records_ranges())
    }

    /// Opens a range that [`Device::close_range`] closes, or the end of the [`Device::range`] around it.
    pub fn open_range(&mut self, name: fmt::Arguments<'_>) {
        if let Backend::Gpu { driver, open_ranges, .. } = &mut self.backend
            && driver.records_ranges()
        {
            driver.range_push(&name.to_string());
            *open_ranges += 1;
        }
    }

    /// Closes the innermost range that is open.
    pub fn close_range(&mut self) {
        if let Backend::Gpu { driver, open_ranges, .. } = &mut self.backend
            && *open_ranges > 0
        {
            driver.range_pop();
            *open_ranges -= 1;
        }
    }

    fn open_ranges(&self) -> usize {
        if let Backend::Gpu { open_ranges, .. } = &self.backend { *open_ranges } else { 0 }
    }
}
