//! What the meta data say of a table.

use super::growth::Growth;
use super::region::ExtentShape;
use crate::table_id::TableId;

/// A table at a cut, but for its pages: what a checkpoint notes of it, and what an open begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableState {
    pub(crate) id: TableId,
    /// log2 of the pages in the first extents.
    pub(crate) primary_log2: u8,
    pub(crate) overflow_log2: u8,
    pub(crate) growth: Growth,
    /// Entries, expired ones included.
    pub(crate) records: u64,
    /// Records that the table must have room for before it may shrink.
    pub(crate) floor: u64,
    /// First pages of the extents, by their numbers in the region.
    pub(crate) primary_extents: Vec<u64>,
    pub(crate) overflow_extents: Vec<u64>,
}

impl TableState {
    /// A main table without pages.
    pub(crate) const fn none() -> Self {
        TableState {
            id: TableId::MAIN,
            primary_log2: 0,
            overflow_log2: 0,
            growth: Growth::ONE_PAGE,
            records: 0,
            floor: 0,
            primary_extents: Vec::new(),
            overflow_extents: Vec::new(),
        }
    }

    /// Both regions, primary pages first, each with its extents: where they begin, and their shapes.
    pub(crate) fn extents(&self) -> [impl Iterator<Item = (u64, ExtentShape)>; 2] {
        let regions = [(self.primary_log2, &self.primary_extents), (self.overflow_log2, &self.overflow_extents)];
        regions.map(|(log2, firsts)| {
            firsts.iter().enumerate().map(move |(number, &first)| (first, ExtentShape::of(log2, number)))
        })
    }
}
