//! The tables of a store: the main one, and others by their ids.
//!
//! *Locks:* the cuts come before the list, the list before every structure, and those before every stripe. A checkpoint's cut
//! takes them in this order. So nobody asks for the list with a stripe held.

use std::ops::Deref;
use std::sync::Arc;

use super::growth::Growth;
use super::index::Index;
use super::load::level_for;
use super::state::TableState;
use super::{Table, TableParts};
use crate::address::Address;
use crate::error::Result;
use crate::mutant::{Mutant, broken};
use crate::need::Step;
use crate::sync::{AtomicU64, Bell, Mutex, MutexGuard, Ordering};
use crate::table_id::TableId;
use crate::tuning::Tuning;

#[derive(Debug)]
pub(crate) struct Tables {
    index: Arc<Index>,
    main: Arc<Table>,
    others: Mutex<Others>,
    /// Above the id of every table that there ever was.
    next_id: AtomicU64,
    /// Held while a table is made, cleared or dropped.
    changing: Mutex<()>,
    /// Held by a cut, and by whoever puts cuts off.
    cuts: Mutex<()>,
    tuning: Tuning,
    growth_bell: Bell,
}

#[derive(Debug, Default)]
struct Others {
    /// By ascending id.
    list: Vec<Arc<Table>>,
    /// Tables that were dropped, and that a checkpoint may still name.
    retired: Vec<Arc<Table>>,
}

/// A table that was looked up.
pub(crate) enum TableRef<'t> {
    /// The main one, which is always there.
    Main(&'t Arc<Table>),
    /// Another one, which stays in memory as long as somebody has it.
    Other(Arc<Table>),
}

impl Deref for TableRef<'_> {
    type Target = Table;

    #[inline]
    fn deref(&self) -> &Table {
        match self {
            TableRef::Main(table) => table,
            TableRef::Other(table) => table,
        }
    }
}

impl TableRef<'_> {
    /// A handle of one's own.
    pub(crate) fn shared(&self) -> Arc<Table> {
        match self {
            TableRef::Main(table) => Arc::clone(table),
            TableRef::Other(table) => Arc::clone(table),
        }
    }
}

/// The list of tables. While it is held, none comes and none goes.
#[derive(Debug)]
pub(crate) struct HeldList<'t> {
    tables: &'t Tables,
    others: MutexGuard<'t, Others>,
}

impl HeldList<'_> {
    /// All tables, the main one first, then by ascending id.
    pub(crate) fn all(&self) -> Vec<Arc<Table>> {
        std::iter::once(&self.tables.main).chain(&self.others.list).map(Arc::clone).collect()
    }

    /// Takes a table off the list. It is marked as dropped, so nobody changes it. Its pages wait for no checkpoint any more.
    pub(crate) fn retire(&mut self, id: TableId) {
        let Ok(at) = self.others.list.binary_search_by_key(&id, |table| table.id()) else { return };
        let table = self.others.list.remove(at);
        self.tables.index.dirty.forget_table(id, |page| table.by_id(page));
        if broken(Mutant::PagesGoneTooEarly) {
            // What fails here is met again.
            let _ = table.punch_all();
        }
        self.tables.index.uncount_table();
        self.others.retired.push(table);
    }

    /// The tables that were dropped since the last cut. The checkpoint of this cut is the first that does not name them.
    pub(crate) fn take_retired(&mut self) -> Vec<Arc<Table>> {
        std::mem::take(&mut self.others.retired)
    }
}

impl Tables {
    /// The tables of the meta data, the main one first, then by ascending id.
    pub(crate) fn new(
        index: Arc<Index>,
        states: &[TableState],
        next_id: u32,
        tuning: Tuning,
        growth_bell: Bell,
    ) -> Self {
        let table = |state: &TableState| {
            let (index, state, growth_bell) = (Arc::clone(&index), state.clone(), growth_bell.clone());
            Arc::new(Table::new(TableParts { index, tuning, state, growth_bell }))
        };
        let (main, others) = states.split_first().map_or((None, &[][..]), |(main, others)| (Some(main), others));
        let main = table(main.unwrap_or(&TableState::none()));
        let list = others.iter().map(table).collect();
        let others = Mutex::new(Others { list, retired: Vec::new() });
        let (next_id, changing, cuts) = (AtomicU64::new(next_id.into()), Mutex::new(()), Mutex::new(()));
        Tables { main, others, next_id, changing, cuts, tuning, growth_bell, index }
    }

    /// Above the id of every table that there ever was.
    pub(crate) fn next_id(&self) -> u32 {
        // `take_id` gives none out above.
        self.next_id.load(Ordering::Relaxed).min(u32::MAX.into()) as u32
    }

    /// What the tables share.
    pub(crate) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The table that every store has.
    #[inline]
    pub(crate) fn main(&self) -> &Arc<Table> {
        &self.main
    }

    /// Puts off the cuts of checkpoints: what happens meanwhile is in the next one as a whole.
    pub(crate) fn put_off_cuts(&self) -> MutexGuard<'_, ()> {
        self.cuts.lock()
    }

    /// Waits until no table comes or goes, and keeps it so.
    pub(crate) fn hold_list(&self) -> HeldList<'_> {
        HeldList { tables: self, others: self.others.lock() }
    }

    /// All tables of this moment, the main one first, then by ascending id.
    pub(crate) fn all(&self) -> Vec<Arc<Table>> {
        self.hold_list().all()
    }

    /// The table of an id. The caller holds no stripe.
    #[inline]
    pub(crate) fn get(&self, id: TableId) -> Option<TableRef<'_>> {
        if id == TableId::MAIN {
            return Some(TableRef::Main(&self.main));
        }
        find(&self.others.lock().list, id).map(|table| TableRef::Other(Arc::clone(table)))
    }

    /// True if a slot of a table names the record at this address. Nothing names the records of a table that was dropped. The
    /// caller holds no stripe.
    ///
    /// # Errors
    /// `Corrupt` if a page is damaged.
    pub(crate) fn names(&self, table: TableId, hash: u64, address: Address) -> Result<bool> {
        self.get(table).map_or(Ok(false), |table| Ok(table.names(hash, address)?))
    }

    /// True if there is no table but the main one.
    pub(crate) fn is_alone(&self) -> bool {
        self.others.lock().list.is_empty()
    }

    /// Tables that a name can lead to.
    pub(crate) fn named(&self) -> usize {
        self.others.lock().list.iter().filter(|table| table.id() >= TableId::FIRST).count()
    }

    /// Waits until nobody else makes, clears or drops a table. Comes before the list.
    pub(crate) fn begin_change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// An id that no table ever had. `None` if there is none left.
    pub(crate) fn take_id(&self) -> Option<TableId> {
        let next = |id: u64| (id < u64::from(u32::MAX)).then_some(id + 1);
        let taken = self.next_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        u32::try_from(taken).ok().map(TableId::from_raw)
    }

    /// A table has this id.
    pub(crate) fn pass_id(&self, id: TableId) {
        self.next_id.fetch_max(u64::from(id.raw()) + 1, Ordering::Relaxed);
    }

    /// The table of an id, with its first pages. It is made if there is none.
    ///
    /// # Errors
    /// A [`Need`](crate::need::Need): nothing has changed then.
    pub(crate) fn get_or_add(&self, id: TableId) -> Step<Arc<Table>> {
        self.get_or_add_for(id, 0)
    }

    /// The same; a table that is made has room for `entries`.
    ///
    /// # Errors
    /// As for [`get_or_add`](Self::get_or_add).
    pub(crate) fn get_or_add_for(&self, id: TableId, entries: u64) -> Step<Arc<Table>> {
        let mut others = self.others.lock();
        let at = match others.list.binary_search_by_key(&id, |table| table.id()) {
            Ok(at) => return Ok(Arc::clone(&others.list[at])),
            Err(at) => at,
        };
        self.index.count_table()?;
        let level = level_for(self.index.geometry, &self.tuning, entries);
        let state = TableState {
            id,
            primary_log2: level,
            overflow_log2: self.tuning.overflow_log2_min,
            growth: Growth::resting(level, level.min(self.tuning.stripes_log2_max)),
            ..TableState::none()
        };
        let (index, growth_bell) = (Arc::clone(&self.index), self.growth_bell.clone());
        let table = Arc::new(Table::new(TableParts { index, tuning: self.tuning, state, growth_bell }));
        table.add_first_pages().inspect_err(|_| self.index.uncount_table())?;
        others.list.insert(at, Arc::clone(&table));
        Ok(table)
    }
}

/// All tables at once.
impl Tables {
    /// Takes every stripe once, one after the other: whoever held one before has let go of it since.
    pub(crate) fn pass_all_stripes(&self) {
        self.all().iter().for_each(|table| table.pass_all_stripes());
    }

    /// Records of all tables but the catalog.
    pub(crate) fn records(&self) -> u64 {
        self.all().iter().filter(|table| table.id() != TableId::CATALOG).map(|table| table.records()).sum()
    }

    /// Primary pages of all tables.
    pub(crate) fn pages(&self) -> u64 {
        self.all().iter().map(|table| table.growth().pages()).sum()
    }

    /// Lookups that took a stripe's lock because writers were too fast for them.
    pub(crate) fn reader_locks(&self) -> u64 {
        self.all().iter().map(|table| table.reader_locks()).sum()
    }

    /// Gives back the pages of dropped tables, which the durable checkpoint does not name. `synced`: it has synced the index file.
    ///
    /// 1. The pages are punched out of the file. *Crash:* nothing names them.
    /// 2. The next checkpoint syncs the file. Then extents may lie there. *Crash before a checkpoint names one:* as in 1.
    ///
    /// # Errors
    /// `Io`. Tables of which 1 failed are tried again after the next checkpoint.
    pub(crate) fn give_back_retired(&self, retired: Vec<Arc<Table>>, synced: bool) -> Result<()> {
        if synced {
            self.index.reuse_punched();
        }
        let mut result = Ok(());
        for table in retired {
            match table.punch_all() {
                Ok(punched) => self.index.add_punched(punched),
                Err(error) => {
                    self.others.lock().retired.push(table);
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Drops private copies of clean pages if so many pages are private that the next ones would soon have to wait.
    pub(crate) fn drop_clean_pages(&self) {
        if self.index.has_much_private() {
            self.all().iter().for_each(|table| table.drop_clean_pages());
        }
    }
}

/// The table of an id among some that are sorted by it.
pub(super) fn find(tables: &[Arc<Table>], id: TableId) -> Option<&Arc<Table>> {
    let at = tables.binary_search_by_key(&id, |table| table.id()).ok()?;
    tables.get(at)
}
