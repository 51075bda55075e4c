//! Reading the log from its first record to its end, damage or not, into the new store.
//!
//! Records are read one behind the other. At one that does not validate:
//!
//! 1. With a checkpoint, and nothing that declares this point durable: it is the end of the log, as for an open.
//!    What follows was never acknowledged and is left out.
//! 2. Else it is damage. The next record that validates is searched at every multiple of eight; the bytes up to
//!    it are lost. Of a frame, each record that validates counts where the frame was durable: then its batch was
//!    committed. Where nothing says so, a frame counts whole or not at all.
//! 3. If nothing else validates in the last segment, and nothing declares it durable, it is the end, too.
//!
//! The catalog as it stands at the end of the log decides about each record of a table (**names**). So the log is read
//! for the catalog as soon as such a record is met, by the same rules.
//!
//! Time is bounded: searching stops when the bytes of things that only looked like records exceed a multiple of
//! the segment. Memory is bounded by the largest record.

use std::path::Path;
use std::rc::Rc;

use super::name_reader::NameReader;
use super::plan::{Part, Plan};
use super::report::Report;
use super::taker::Taker;
use super::value::{Fetched, blob};
use crate::address::Lsn;
use crate::check::sink::{Input, Sink, of_the_moment};
use crate::checkpoint::meta::Meta;
use crate::checksum::Uuid;
use crate::error::Result;
use crate::layout::segment_path;
use crate::log::reader::{PreadSource, RecordSource};
use crate::log::record::{ALIGN, BlobLink, FRAME_BYTES, Invalid, Kind};
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::sys::Disk;
use crate::table_id::TableId;
use crate::words::some;

/// Bytes that are read between two looks at the progress.
const STEP_BYTES: u64 = 1 << 20;

/// The log on its way into the new store.
pub(super) struct Salvage<'s, 'p> {
    pub(super) disk: &'s dyn Disk,
    /// The log's directory.
    pub(super) dir: &'s Path,
    pub(super) uuid: Uuid,
    pub(super) plan: &'s Plan,
    /// A checkpoint says where the log ends if nothing else declares more durable.
    pub(super) trusted: bool,
    pub(super) sink: &'s mut Sink<'p>,
    pub(super) report: &'s mut Report,
    pub(super) target: &'s mut dyn Taker,
    /// The meta data of the checkpoint, if it can be read.
    pub(super) meta: Option<&'s Meta>,
    /// The end of the log was come across: what follows is left out.
    pub(super) ended: bool,
    /// Lost ranges: sequence, from, to.
    pub(super) ranges: Vec<(u32, u64, u64)>,
}

/// Where reading a segment stands.
pub(super) struct Cursor<'c> {
    pub(super) part: &'c Part,
    pub(super) path: Rc<Path>,
    pub(super) source: PreadSource,
    pub(super) input: Input,
    at: u64,
    /// No record goes on behind this.
    pub(super) limit: u64,
    pub(super) salt: u64,
    /// Bytes of things that looked like records and were none.
    wasted: u64,
    /// A loss before this point can have hidden the header of a batch that goes on here.
    maybe_in_batch: bool,
    /// Records up to here belong to a batch that is known to be saved in part: no loss hides its header.
    part_end: u64,
    /// Something was lost before this point, and nothing declares what follows durable.
    unconfirmed: bool,
    /// A block could not be read.
    unreadable: bool,
}

/// Why a record or batch was not taken.
struct Refused {
    why: String,
    /// The end of a batch that is not whole.
    batch_end: Option<u64>,
}

impl From<Invalid> for Refused {
    fn from(why: Invalid) -> Self {
        let (expected, found) = why.texts();
        Refused { why: format!("expected {expected}, found {found}"), batch_end: None }
    }
}

/// The outcome of one record or batch: where the next one begins.
type Taken = std::result::Result<u64, Refused>;

impl Salvage<'_, '_> {
    /// Reads the whole log.
    pub(super) fn run(&mut self) -> Result<()> {
        let plan = self.plan;
        for (i, part) in plan.parts.iter().enumerate() {
            let is_last = i + 1 == plan.parts.len();
            if self.ended {
                self.leave_out(part)?;
            } else {
                self.part(part, is_last)?;
            }
        }
        let end = plan.parts.last().map_or(0, |part| part.sequence);
        if plan.durable_lsn.sequence() > end && !self.ended {
            let path = segment_path(self.dir, plan.durable_lsn.sequence());
            let to = plan.durable_lsn.offset();
            let reason = format!("no such file, but it was durable up to byte {to}");
            self.lose("segment-missing", &path, plan.durable_lsn.sequence(), SEGMENT_HEADER_BYTES..to, true, reason)?;
        }
        Ok(())
    }

    /// A segment behind the end of the log.
    fn leave_out(&mut self, part: &Part) -> Result<()> {
        let name = part.path.display();
        self.report
            .files_left_out
            .push(format!("{name}: behind the end of the log, and nothing says that it was durable"));
        if let Ok(input) = Input::open(self.disk, &part.path)? {
            let mut source = PreadSource::new(input.file, part.limit());
            // Whether the bytes are records does not matter, so neither does the salt.
            self.report.torn_bytes += source.behind(SEGMENT_HEADER_BYTES, part.salt.unwrap_or_default()).1;
            self.sink.advance(source.take_bytes_read())?;
        }
        Ok(())
    }

    fn part(&mut self, part: &Part, is_last: bool) -> Result<()> {
        let begin = Lsn::new(part.sequence, SEGMENT_HEADER_BYTES);
        let acknowledged = begin < self.plan.durable_lsn;
        let input = match part.len {
            Some(_) => Input::open(self.disk, &part.path)?.ok(),
            None => None,
        };
        let (Some(input), Some(salt)) = (input, part.salt) else {
            if !acknowledged && self.trusted {
                self.ended = true;
                // What lies behind a damaged header may have been acknowledged: its marks cannot be read.
                if !part.bad_header {
                    return self.leave_out(part);
                }
            }
            let (kind, acknowledged, reason) = match part.len {
                None if self.trusted => ("segment-missing", acknowledged, "there are no records of it"),
                None => ("segment-gap", false, "lost, or freed by a compaction: without the index nobody knows"),
                Some(_) => ("segment-header", acknowledged, "nothing tells the salt of its records"),
            };
            let to = part.end.or(part.len).unwrap_or(0);
            return self.lose(kind, &part.path, part.sequence, SEGMENT_HEADER_BYTES..to, acknowledged, reason.into());
        };
        self.report.segments += 1;
        let limit = part.limit().min(input.len);
        let source = PreadSource::new(input.file.clone(), limit);
        let at = SEGMENT_HEADER_BYTES;
        let path = Rc::from(part.path.as_path());
        let mut cursor = Cursor {
            part,
            path,
            source,
            input,
            at,
            limit,
            salt,
            wasted: 0,
            maybe_in_batch: false,
            part_end: 0,
            unconfirmed: false,
            unreadable: false,
        };
        self.records(&mut cursor, is_last)?;
        if self.ended {
            return Ok(());
        }
        // The file ends before its records do, or what was durable is zeroes now.
        let at = cursor.at;
        let durable_here = match self.plan.durable_lsn {
            lsn if lsn.sequence() == part.sequence => lsn.offset(),
            _ => 0,
        };
        let end = part.end.unwrap_or(durable_here);
        if end > at {
            let acknowledged = Lsn::new(part.sequence, at) < self.plan.durable_lsn;
            if !acknowledged && self.trusted {
                self.ended = true;
                return Ok(());
            }
            let kind = if part.end.is_some() { "segment-length" } else { "log-end" };
            let reason = format!("records up to byte {end}, but the last one ends at {at}");
            self.lose(kind, &part.path, part.sequence, at..end, acknowledged, reason)?;
        }
        Ok(())
    }

    /// Reads the records of a segment.
    fn records(&mut self, cursor: &mut Cursor<'_>, is_last: bool) -> Result<()> {
        let mut told = cursor.at;
        while cursor.at < cursor.limit {
            match self.unit(cursor)? {
                Ok(next) => {
                    self.report.valid_bytes += next - cursor.at;
                    cursor.at = next;
                }
                Err(refused) => {
                    if !self.damage(cursor, refused, is_last)? {
                        return Ok(());
                    }
                }
            }
            if cursor.at >= told + STEP_BYTES {
                told = cursor.at;
                self.sink.advance(cursor.source.take_bytes_read())?;
            }
        }
        self.sink.advance(cursor.source.take_bytes_read())
    }

    /// One record, or one batch with all its records.
    fn unit(&mut self, cursor: &mut Cursor<'_>) -> Result<Taken> {
        let (at, limit) = (cursor.at, cursor.limit);
        let record = match cursor.source.record(at, limit, cursor.salt) {
            Ok(record) => record,
            Err(why) => return Ok(Err(why.into())),
        };
        let next = at + record.header.total();
        match record.header.kind {
            Kind::Mark => cursor.maybe_in_batch = false,
            Kind::Frame => {
                let frame = record.frame();
                return Ok(match self.batch(cursor, next, frame)? {
                    // Its records come one by one.
                    Err(refused) if self.is_durable(cursor, at) => {
                        self.report.batches_in_part += 1;
                        cursor.part_end = refused.batch_end.unwrap_or(next);
                        Ok(next)
                    }
                    taken => taken,
                });
            }
            _ => return self.record(cursor, at, limit),
        }
        Ok(Ok(next))
    }

    /// True if something says that a point of the log was durable.
    fn is_durable(&self, cursor: &Cursor<'_>, at: u64) -> bool {
        Lsn::new(cursor.part.sequence, at) < self.plan.durable_lsn
    }

    /// The records of a batch, whose header ends at `first`.
    fn batch(&mut self, cursor: &mut Cursor<'_>, first: u64, frame: Option<(u64, u64)>) -> Result<Taken> {
        cursor.maybe_in_batch = false;
        let Some((records, bytes)) = frame else {
            return Ok(Err(Refused { why: "a batch without a length".into(), batch_end: Some(first) }));
        };
        let Some(end) = first.checked_add(bytes).filter(|&end| end <= cursor.limit) else {
            let why = format!("a batch of {} that ends behind the segment's records", some(bytes, "byte"));
            return Ok(Err(Refused { why, batch_end: Some(cursor.limit) }));
        };
        let (mut at, mut left) = (first, records);
        while left > 0 {
            let why = match cursor.source.record(at, end, cursor.salt) {
                Ok(record) if matches!(record.header.kind, Kind::Put | Kind::PutBlob | Kind::Remove) => {
                    at += record.header.total();
                    left -= 1;
                    continue;
                }
                Ok(record) => format!("a record of kind {:?} in a batch", record.header.kind),
                Err(why) => Refused::from(why).why,
            };
            let why = format!("a batch of {} whose record at byte {at} is damaged: {why}", some(records, "record"));
            return Ok(Err(Refused { why, batch_end: Some(end) }));
        }
        if at != end {
            let why = format!("a batch of {} whose end is at byte {at}, not at {end}", some(records, "record"));
            return Ok(Err(Refused { why, batch_end: Some(end) }));
        }
        self.report.batches += 1;
        let mut at = first;
        while at < end {
            at = match self.record(cursor, at, end)? {
                Ok(next) => next,
                // It validated a moment ago: the device has begun to refuse it.
                Err(refused) => return Ok(Err(Refused { batch_end: Some(end), ..refused })),
            };
        }
        Ok(Ok(end))
    }

    /// True if the records of a table that lie at a point of the log are to be saved.
    pub(super) fn counts(&mut self, table: TableId, lsn: Lsn) -> Result<bool> {
        if !self.target.knows(table) {
            self.learn_names()?;
        }
        self.target.counts(table, lsn)
    }

    /// Reads the whole log for the catalog, which says what becomes of each record of a table.
    fn learn_names(&mut self) -> Result<()> {
        self.sink.expect(self.plan.bytes());
        let (mut reader, mut report) = (NameReader::default(), Report::default());
        let mut first = Salvage {
            disk: self.disk,
            dir: self.dir,
            uuid: self.uuid,
            plan: self.plan,
            trusted: self.trusted,
            sink: self.sink,
            report: &mut report,
            target: &mut reader,
            meta: self.meta,
            ended: false,
            ranges: Vec::new(),
        };
        first.run()?;
        self.target.learn(reader.names(self.meta))
    }

    /// One record that changes something. It validates.
    fn record(&mut self, cursor: &mut Cursor<'_>, at: u64, limit: u64) -> Result<Taken> {
        let record = match cursor.source.record(at, limit, cursor.salt) {
            Ok(record) => record,
            Err(why) => return Ok(Err(why.into())),
        };
        let next = at + record.header.total();
        let (table, key, deadline) = (record.table(), record.key().to_vec(), record.deadline());
        if !self.target.knows(table) {
            self.learn_names()?;
        }
        if !self.target.counts(table, Lsn::new(cursor.part.sequence, at))? {
            self.report.records_left_out += 1;
            return Ok(Ok(next));
        }
        let owner = (table, &*key);
        match record.header.kind {
            Kind::Put if record.is_clipped() => {
                let header = record.header;
                match super::value::long(&cursor.input, header, at, cursor.salt)? {
                    Ok(value) => self.target.put(owner, &value, deadline)?,
                    Err(why) => return Ok(Err(Refused { why, batch_end: None })),
                }
                self.report.puts += 1;
            }
            Kind::Put => {
                self.target.put(owner, record.value(), deadline)?;
                self.report.puts += 1;
            }
            Kind::Remove => {
                self.target.remove(owner)?;
                self.report.removes += 1;
            }
            // It speaks of the main table. Another one is cleared by the catalog.
            Kind::Clear => {
                self.target.clear()?;
                self.report.clears += 1;
            }
            Kind::PutBlob => {
                let link = BlobLink::decode(record.value());
                self.report.puts += 1;
                match blob(self.disk, self.dir, self.uuid, link, self.sink)? {
                    Fetched::Whole(value) => {
                        self.target.put(owner, &value, deadline)?;
                        self.report.blobs += 1;
                    }
                    // The older value is known not to be the key's any more. Compaction frees the blob of an expired record,
                    // and can leave the record itself.
                    Fetched::Lost(why) => {
                        self.target.remove(owner)?;
                        if !deadline.is_over(self.disk.now()) {
                            self.target.lose(owner, &cursor.path, at, why, false);
                        }
                    }
                }
            }
            Kind::Frame | Kind::Mark => {}
        }
        self.report.unconfirmed_records += u64::from(cursor.unconfirmed);
        Ok(Ok(next))
    }

    /// Something that does not validate. False if the segment's records end here.
    fn damage(&mut self, cursor: &mut Cursor<'_>, refused: Refused, is_last: bool) -> Result<bool> {
        let (at, sequence) = (cursor.at, cursor.part.sequence);
        let acknowledged = self.is_durable(cursor, at);
        if !acknowledged && self.trusted {
            self.ended = true;
            self.report.torn_bytes += cursor.source.behind(at, cursor.salt).1;
            return Ok(false);
        }
        let next = match refused.batch_end {
            Some(end) => Some(end),
            None => self.next_valid(cursor)?,
        };
        let mut reason = refused.why;
        for (at, error) in cursor.source.take_bad() {
            of_the_moment("read", &cursor.path, &error)?;
            cursor.unreadable = true;
            reason = format!("the block at byte {at} cannot be read: {error}; {reason}");
        }
        let Some(next) = next else {
            let written = cursor.source.behind(at, cursor.salt).1;
            // Behind the last record of a segment whose end nothing tells there are zeroes.
            let ends_here =
                cursor.part.end.is_none() && (written == 0 || !acknowledged && is_last) && !cursor.unreadable;
            if ends_here {
                self.report.torn_bytes += written;
                return Ok(false);
            }
            let to = cursor.part.end.map_or((at + written).next_multiple_of(ALIGN), |_| cursor.limit);
            cursor.at = to;
            self.lose("record", &cursor.path.clone(), sequence, at..to, acknowledged, reason)?;
            return Ok(cursor.part.end.is_some());
        };
        let kind = if refused.batch_end.is_some() { "batch" } else { "record" };
        self.report.batches_left_out += u64::from(refused.batch_end.is_some());
        self.lose(kind, &cursor.path.clone(), sequence, at..next, acknowledged, reason)?;
        // A range can have held the header of a batch that goes on behind it. If it held more, a part of the batch
        // is lost; if not, a part of it is when the next loss comes.
        let single = self.lost_keys(cursor, at, next, refused.batch_end.is_some())?;
        let hides_frame =
            refused.batch_end.is_none() && next > cursor.part_end && !(single && next - at != FRAME_BYTES as u64);
        let hides_more = hides_frame && next - at > FRAME_BYTES as u64 && self.is_member(cursor, next);
        self.report.batches_uncertain += u64::from(cursor.maybe_in_batch || hides_more);
        cursor.maybe_in_batch = hides_frame && !hides_more;
        cursor.unconfirmed |= !acknowledged;
        cursor.at = next;
        Ok(true)
    }

    /// The next offset at which a record validates; the limit if that is where the damaged record ends.
    fn next_valid(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<u64>> {
        let limit = cursor.limit;
        let budget = 128 * limit + (64 << 20);
        let mut told = cursor.at;
        let mut at = cursor.at + ALIGN;
        while at < limit {
            match cursor.source.record(at, limit, cursor.salt) {
                Ok(_) => return Ok(Some(at)),
                Err(Invalid::Checksum(..)) => {
                    cursor.wasted += cursor.source.header_at(at).map_or(0, |header| header.total());
                    if cursor.wasted > budget {
                        return Ok(None);
                    }
                }
                Err(_) => {}
            }
            at += ALIGN;
            if at >= told + STEP_BYTES {
                told = at;
                self.sink.advance(cursor.source.take_bytes_read())?;
            }
        }
        let header = cursor.source.header_at(cursor.at);
        Ok(header.map(|header| cursor.at + header.total()).filter(|&end| end == limit && cursor.part.end.is_some()))
    }
}
