//! Dealing with the records of a victim: steps 3 to 5 of online.rs.
//!
//! What cannot be read ends the evacuation, and where it lies decides what becomes of the victim:
//!
//! * A record of the victim itself: the segment is damaged, and kept as it is.
//! * A record elsewhere that could be a later put of a removal's key: the segment *waits*. The removal stays where it is. To append
//!   it again would be wrong, because behind a put that can be read another time it would remove that. Once the slot names
//!   another record, or none, the segment can be a victim again; so it can as the oldest one, in which removals die.
//! * A page of the index: the segment waits until the store is opened again, because no change mends a page.

use super::compactor::{Item, Piece, Stopped};
use crate::address::Address;
use crate::engine::Engine;
use crate::engine::write::with_encoded;
use crate::error::Result;
use crate::log::encode::Encoded;
use crate::log::large::Linked;
use crate::log::record::{Invalid, Kind, Label, Record};
use crate::mutant::{Mutant, broken};
use crate::need::Step;
use crate::sync::Moment;
use crate::table::Table;

impl Engine {
    /// Deals with the records of a piece.
    pub(super) fn evacuate_piece(&self, piece: &Piece<'_>) -> std::result::Result<(), Stopped> {
        let mut running_low = false;
        for item in &piece.items {
            let mut unread = None;
            let low = self.evacuate_record(piece, item, &mut unread);
            running_low |= low.map_err(|error| Stopped::new(error, &piece.segment, item, unread))?;
        }
        if running_low && self.tuning.background {
            self.wake.segment.ring();
        }
        Ok(())
    }

    /// Returns true if the log is running low.
    fn evacuate_record(&self, piece: &Piece<'_>, item: &Item, unread: &mut Option<Address>) -> Result<bool> {
        let address = Address::new(piece.segment.slot, item.offset);
        // Nothing names the records of a table that was dropped.
        let Some(table) = self.tables.get(item.table) else { return Ok(false) };
        let (table, label) = (&*table, Label::of(item.table));
        if item.kind != Kind::Remove && !broken(Mutant::MovedBlindly) && !table.names(item.hash, address)? {
            return Ok(false);
        }
        let record = self.log.record(&piece.pinned, address)?;
        self.tuning.pass(Moment::RecordRead);
        with_encoded(|encoded| match item.kind {
            Kind::Remove => {
                encoded.push(label, Kind::Remove, record.key(), &[]);
                self.retry(|| self.keep_removal(table, &record, item.hash, encoded, unread))
            }
            _ if record.deadline().is_over(piece.now) => {
                encoded.push(label, Kind::Remove, record.key(), &[]);
                // Before the first of them: a store in which nothing expires keeps no time.
                self.log.sweep(piece.now);
                self.retry(|| self.expire_record(table, &record, item.hash, address, piece.keep_removals, encoded))
            }
            kind => {
                encoded.push(record.label(), kind, record.key(), record.value());
                self.retry(|| self.move_record(table, &record, item.hash, address, encoded))
            }
        })
    }

    /// Appends a live record again. Returns true if the log is running low.
    fn move_record(
        &self,
        table: &Table,
        record: &Record<'_>,
        hash: u64,
        address: Address,
        encoded: &mut Encoded,
    ) -> Step<bool> {
        let mut edit = table.edit(hash)?;
        // Under the stripe: once poisoned, the index does not say any more what the log says.
        self.health.check_writable()?;
        let sought = if broken(Mutant::MovedBlindly) {
            let mut hit = None;
            edit.find(hash, |slot| self.is_key(table, record.key(), slot, &mut hit))?
        } else {
            edit.find_address(hash, Some(address))
        };
        let Some(slot) = sought.slot() else { return Ok(false) };
        if slot.is_marked() {
            // Unreadable when its page was split, readable now: which half it belongs to is still not known.
            return Err(self.log.invalid_record(address, Invalid::Header).into());
        }
        let reserved = edit.reserve_put(sought)?;
        let appended = self.log.append(encoded.singles(), 0, false)?;
        edit.publish(reserved, appended.address);
        let bytes = record.header.total();
        self.log.add_deadline(appended.address, record.deadline(), bytes);
        self.log.bury(address, record.deadline(), bytes);
        let linked = |link| Linked { link, deadline: record.deadline(), address: appended.address };
        self.log.relink(record.blob_link(), record.blob_link().map(linked));
        self.compactor.count_moved(1, bytes);
        Ok(appended.running_low)
    }

    /// Removes an expired record from the index. `encoded` is a removal of its key. Returns true if the log is running low.
    pub(super) fn expire_record(
        &self,
        table: &Table,
        record: &Record<'_>,
        hash: u64,
        address: Address,
        keep_removals: bool,
        encoded: &mut Encoded,
    ) -> Step<bool> {
        let mut edit = table.edit(hash)?;
        self.health.check_writable()?;
        let sought = if broken(Mutant::ExpiredBlindly) {
            let mut hit = None;
            edit.find(hash, |slot| self.is_key(table, record.key(), slot, &mut hit))?
        } else {
            edit.find_address(hash, Some(address))
        };
        let Some(slot) = sought.slot() else { return Ok(false) };
        if slot.is_marked() {
            return Err(self.log.invalid_record(address, Invalid::Header).into());
        }
        let Some(reserved) = edit.reserve_removal(sought)? else { return Ok(false) };
        let recorded = keep_removals && !broken(Mutant::ExpiredUnrecorded);
        let running_low = recorded && self.append_removal(encoded)?;
        edit.publish(reserved, address);
        self.log.bury(address, record.deadline(), record.header.total());
        if !broken(Mutant::ExpiredUnfreed) {
            self.log.relink(record.blob_link(), None);
        }
        self.compactor.count_expired();
        Ok(running_low)
    }

    /// Appends a remove-record again, if its key is absent. Returns true if the log is running low. Whether it is absent is not
    /// known if a record that could be the key's cannot be read, which `unread` says then.
    fn keep_removal(
        &self,
        table: &Table,
        record: &Record<'_>,
        hash: u64,
        encoded: &mut Encoded,
        unread: &mut Option<Address>,
    ) -> Step<bool> {
        *unread = None;
        let edit = table.edit(hash)?;
        self.health.check_writable()?;
        let mut hit = None;
        edit.find(hash, |slot| {
            let is_key = self.is_key(table, record.key(), slot, &mut hit);
            is_key.inspect_err(|_| *unread = Some(slot.address()))
        })?;
        if hit.is_some() {
            // A later put, which a repair finds as well.
            return Ok(false);
        }
        self.append_removal(encoded)
    }

    /// Appends a removal, for the sake of an older segment. The caller holds the key's stripe. Returns true if the log is
    /// running low.
    fn append_removal(&self, encoded: &Encoded) -> Step<bool> {
        // Not from the reserve: on a full disk this is tried again and again, and would use it up.
        let appended = self.log.append(encoded.singles(), 1, false)?;
        self.log.add_dead(appended.address, encoded.len());
        self.compactor.count_moved(0, encoded.len());
        Ok(appended.running_low)
    }
}
