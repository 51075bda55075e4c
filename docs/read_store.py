#!/usr/bin/env python3
"""Reads a tophash store with nothing but docs/FORMAT.md: no locks, no mappings, no speed.

    read_store.py STORE            every record as a JSON line, as `tophash export --format jsonl` prints it; a record of another
                                   table than the main one has a field "table", its name
    read_store.py --check STORE    walks every path, checks every checksum, prints counts

It exists to hold the document to the code: .ci/run compares its output with that of the tool. Run it on a store
that nobody has open (it takes no lock). Expired records are left out. Section numbers are those of FORMAT.md.
"""

import base64
import json
import os
import struct
import sys
import time
import zlib

PAGE = 4096
MASK64 = (1 << 64) - 1
META_FIRST, META_PAGES = 2, 512
BITMAP_BITS = 32256
DEADLINE_MAX = 1 << 62
MAIN, CATALOG, FIRST_TABLE = 0, 1, 2


class Damaged(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Damaged(what)


def u32(b, at):
    return struct.unpack_from("<I", b, at)[0]


def u64(b, at):
    return struct.unpack_from("<Q", b, at)[0]


def crc_without(block, at):
    """Section 2: the crc of a block with its own four bytes taken as zero."""
    return zlib.crc32(block[:at] + b"\0\0\0\0" + block[at + 4:])


def page_crc(uuid, number, page):
    """Section 2: uuid, page number, then everything after the checksum."""
    return zlib.crc32(page[4:], zlib.crc32(struct.pack("<Q", number), zlib.crc32(uuid)))


def record_mask(salt, offset):
    """Section 2: what is XORed into a record's crc."""
    mixed = ((salt ^ (offset * 0x9E3779B97F4A7C15 & MASK64)) * 0xD6E8FEB86659FD93) & MASK64
    return mixed >> 32


def siphash13(k0, k1, data):
    """SipHash with one compression round and three finalization rounds."""
    def rotate(x, b):
        return ((x << b) | (x >> (64 - b))) & MASK64

    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def round_():
        v[0] = (v[0] + v[1]) & MASK64
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & MASK64
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & MASK64
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & MASK64
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)

    whole = len(data) // 8 * 8
    last = int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56
    for m in [u64(data, i) for i in range(0, whole, 8)] + [last]:
        v[3] ^= m
        round_()
        v[0] ^= m
    v[2] ^= 0xFF
    for _ in range(3):
        round_()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def codecs(options):
    """Section 8, the catalog: tag -> (name, version) of a typed table's codecs, 3 -> True if values are aligned; of a table of bytes, nothing."""
    found, at = {}, 0
    while at < len(options):
        need(at + 4 <= len(options), "an option of a table")
        tag, length = struct.unpack_from("<HH", options, at)
        need(at + 4 + length <= len(options), "an option of a table")
        if tag in (1, 2):
            need(tag not in found and 3 <= length <= 130, "the codec of a table")
            version, name = struct.unpack_from("<H", options, at + 4)[0], options[at + 6 : at + 4 + length]
            found[tag] = (name.decode("utf-8"), version)
        if tag == 3:
            need(tag not in found and length == 0, "aligned values of a table")
            found[tag] = True
        at += 4 + length
    need(not found or {1, 2} <= found.keys(), "codecs of keys and values")
    return found


class Record:
    """Section 8."""

    def __init__(self, segment, at, salt, limit):
        need(at + 8 <= limit, "record beyond the end")
        self.at = at
        self.kind = segment[at + 4] & 0x47
        need(1 <= self.kind <= 6, "no record header")
        expires, of_a_table = segment[at + 4] & 0x08 != 0, segment[at + 4] & 0x10 != 0
        need(not expires or self.kind in (1, 6), "no record header")
        need(not of_a_table or self.kind in (1, 2, 6), "no record header")
        aligned = segment[at + 4] & 0x20 != 0
        need(not aligned or self.kind == 1, "no record header")
        if segment[at + 4] & 0x80:
            need(at + 16 <= limit, "record beyond the end")
            need(segment[at + 5] == 0 and u32(segment, at + 12) == 0, "no record header")
            head, keys, values = 16, struct.unpack_from("<H", segment, at + 6)[0], u32(segment, at + 8)
        else:
            head, keys, values = 8, segment[at + 5], struct.unpack_from("<H", segment, at + 6)[0]
        self.table, self.deadline = MAIN, None
        if of_a_table:
            need(at + head + 4 <= limit, "record beyond the end")
            self.table = u32(segment, at + head)
            head += 4
        if expires:
            need(at + head + 8 <= limit, "record beyond the end")
            deadline = u64(segment, at + head)
            self.deadline = deadline if deadline <= DEADLINE_MAX else None
            head += 8
        start, longest = at + head + keys, head + keys + values
        if aligned:
            start, longest = (start + 15) // 16 * 16, (head + keys + 7) // 8 * 8 + 8 + values
        end = start + values
        need(end <= limit, "record beyond the end")
        crc = zlib.crc32(segment[at + 4:end]) ^ record_mask(salt, at)
        need(crc == u32(segment, at), "record checksum")
        self.key = bytes(segment[at + head:at + head + keys])
        self.value = bytes(segment[start:end])
        self.next = at + (longest + 7) // 8 * 8

    def is_over(self, now):
        return self.deadline is not None and self.deadline <= now

    def words(self):
        need(not self.key and len(self.value) == 16, "two words")
        return struct.unpack("<QQ", self.value)


class Segment:
    """Section 7."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        h = self.data[:128].ljust(128, b"\0")
        self.unused = not any(h)
        self.valid = h[:8] == b"tophLOG1" and u32(h, 8) == 1 and crc_without(h, 12) == u32(h, 12)
        self.uuid = h[16:32]
        self.sequence, self.salt, self.predecessor, self.predecessor_end, self.durable_lsn = struct.unpack_from("<5Q", h, 32)
        self.slot = u32(h, 72)

    def marks(self, start):
        """Durable LSNs of all sync marks at or after an offset: found by scanning, not by parsing lengths."""
        at = self.data.find(b"tophMARK", start)
        while at >= 0:
            if at % 8 == 0 and at - 8 >= start:
                try:
                    record = Record(self.data, at - 8, self.salt, len(self.data))
                    if record.kind == 5:
                        yield record.words()[1]
                except Damaged:
                    pass
            at = self.data.find(b"tophMARK", at + 1)


class Table:
    """Section 4: a table's entry in the meta data."""

    def __init__(self, stream, at):
        self.id, self.primary_log2, self.overflow_log2, zero, growth, self.count, _, primary, overflow = \
            struct.unpack_from("<IBBHQQQII", stream, at)
        need(zero == 0 and primary <= 40 and overflow <= 40, "a table's entry")
        self.primary = struct.unpack_from("<%dQ" % primary, stream, at + 40)
        self.overflow = struct.unpack_from("<%dQ" % overflow, stream, at + 40 + 8 * primary)
        self.end = at + 40 + 8 * (primary + overflow)
        self.level, self.cursor = growth & 63, growth >> 16

    def ranges(self):
        """The pages of each extent, bitmap pages included."""
        for extents, base in (self.primary, self.primary_log2), (self.overflow, self.overflow_log2):
            for number, first in enumerate(extents):
                pages = 1 << (base + max(number - 1, 0))
                yield first, first + pages + -(-pages // BITMAP_BITS)

    def page_of(self, hash_):
        page = hash_ & (1 << self.level) - 1
        return hash_ & (2 << self.level) - 1 if page < self.cursor else page


class Store:
    def __init__(self, path):
        self.directory = path
        with open(os.path.join(path, "index"), "rb") as file:
            self.index = file.read()
        with open(os.path.join(path, "journal"), "rb") as file:
            self.journal = file.read()
        self.overlay = {}
        self.choose_header()
        self.read_meta()
        self.log = os.path.join(path, "log-%d" % self.log_dir)
        self.segments = {slot: (Segment(self.segment_path(sequence)), salt, end)
                         for sequence, slot, salt, _, end, _, _ in self.known}
        # By table id and key: (value, deadline, LSN) from the index, a Record from the tail.
        self.records = {}
        # The addresses in the index.
        self.named = set()
        self.tail_records = 0
        self.checked_pages = self.checked_overflow = 0

    def segment_path(self, sequence):
        return os.path.join(self.log, "%08d.log" % sequence)

    # Section 3, and steps 1 and 2 of section 10.
    def choose_header(self):
        slots = []
        for slot in (0, 1):
            h = self.index[slot * PAGE:(slot + 1) * PAGE]
            if len(h) == PAGE and h[:8] == b"tophash1" and crc_without(h, 16) == u32(h, 16):
                need(u32(h, 8) <= 1, "newer read version")
                need(u32(h, 20) == 1 and u64(h, 56) % 2 == slot, "header fields")
                slots.append(h)
        need(slots, "no header")
        h = max(slots, key=lambda h: u64(h, 56))
        self.uuid = h[24:40]
        need(all(other[24:40] == self.uuid for other in slots), "two stores")
        self.key = struct.unpack_from("<QQ", h, 40)
        self.generation, self.cut, self.log_dir, flags = struct.unpack_from("<4Q", h, 64)
        self.homes, self.stash = struct.unpack_from("<2I", h, 96)
        self.clean = flags & 1 != 0 and len(slots) == 2
        head = self.journal[:PAGE]
        valid = len(head) == PAGE and head[:8] == b"tophJNL1" and u32(head, 8) == 1 and head[16:32] == self.uuid
        valid = valid and crc_without(head, 12) == u32(head, 12)
        generation, cut, images = struct.unpack_from("<3Q", head, 32) if valid else (0, 0, 0)
        redo = valid and generation == self.generation + 1 and self.journal_complete(generation, images)
        need(len(slots) == 2 or redo or (valid and generation == self.generation), "an unexplained header slot")
        if redo:
            self.generation, self.cut, self.clean = generation, cut, False
            self.overlay = {u64(image, 8): image for image in self.images(images)}

    def images(self, count):
        return [self.journal[(i + 1) * PAGE:(i + 2) * PAGE] for i in range(count)]

    # Section 6.
    def journal_complete(self, generation, images):
        if (images + 2) * PAGE > len(self.journal):
            return False
        checksum, previous = 0, 0
        for image in self.images(images):
            number = u64(image, 8)
            if page_crc(self.uuid, number, image) != u32(image, 0) or u64(image, 48) != generation:
                return False
            if number <= previous:
                return False
            previous = number
            checksum = zlib.crc32(image[:4], checksum)
        trailer = self.journal[(images + 1) * PAGE:(images + 2) * PAGE]
        expected = b"tophJEND".ljust(16, b"\0") + self.uuid + struct.pack("<3Q", generation, images, checksum)
        expected = expected.ljust(PAGE, b"\0")
        return trailer == expected[:12] + struct.pack("<I", zlib.crc32(expected)) + expected[16:]

    def page(self, number, kind):
        page = self.overlay.get(number)
        if page is None:
            page = self.index[number * PAGE:(number + 1) * PAGE].ljust(PAGE, b"\0")
        need(page_crc(self.uuid, number, page) == u32(page, 0), "checksum of page %d" % number)
        need(page[4:8] == kind and u64(page, 8) == number, "kind or number of page %d" % number)
        need(u64(page, 48) <= self.generation, "generation of page %d" % number)
        return page

    # Section 4.
    def read_meta(self):
        stream = b""
        number, length = META_FIRST, 4032
        while len(stream) < length:
            need(number < META_FIRST + META_PAGES, "meta data without end")
            stream += self.page(number, b"MET1")[64:]
            if number == META_FIRST:
                length = u64(stream, 0)
            number += 1
        (_, self.end_page, self.next_sequence, self.next_table, self.blob_next, self.blob_count, _, self.swept,
         tables, segments, flying, dying, expiring) = struct.unpack_from("<13Q", stream)
        at = 104
        self.tables = []
        for _ in range(tables):
            table = Table(stream, at)
            need(table.id < self.next_table, "next table id")
            self.tables.append(table)
            at = table.end
        need(all(a.id < b.id for a, b in zip(self.tables, self.tables[1:])), "order of the tables")
        need(self.tables and self.tables[0].id == MAIN, "the main table")
        taken = sorted(pages for table in self.tables for pages in table.ranges())
        need(all(a[1] <= b[0] for a, b in zip(taken, taken[1:])) and taken[-1][1] <= self.end_page, "extents that overlap")
        self.known = [struct.unpack_from("<II5Q", stream, at + 48 * i) for i in range(segments)]
        at += 48 * segments + 8 * (flying + dying)
        deadlines = [struct.unpack_from("<4Q", stream, at + 32 * i) for i in range(expiring)]
        need(all(a[0] < b[0] for a, b in zip(deadlines, deadlines[1:])), "order of the segments' deadlines")
        at += 32 * expiring
        need(at == length, "length of the meta data")

    # Section 5: a region's page number to a page number in the file, and whether the page is in use.
    def locate(self, extents, base, page):
        number = 0 if page >> base == 0 else page.bit_length() - base
        pages = 1 << (base + max(number - 1, 0))
        offset = page if number == 0 else page - pages
        bitmaps = -(-pages // BITMAP_BITS)
        need(number < len(extents), "a page beyond the extents")
        bitmap = self.page(extents[number] + offset // BITMAP_BITS, b"MAP1")
        bit = offset % BITMAP_BITS
        used = bitmap[64 + bit // 8] >> bit % 8 & 1
        return extents[number] + bitmaps + offset, used

    def chain(self, table, number):
        at, used = self.locate(table.primary, table.primary_log2, number)
        if not used:
            raw = self.overlay.get(at) or self.index[at * PAGE:(at + 1) * PAGE]
            need(not any(raw), "page %d is not in use and not empty" % at)
            return []
        pages = [self.page(at, b"BKT1")]
        while u64(pages[-1], 40):
            at, used = self.locate(table.overflow, table.overflow_log2, u64(pages[-1], 40) - 1)
            page = self.page(at, b"BKT1")
            need(used and u64(page, 16) == number, "owner of an overflow page")
            need(struct.unpack_from("<H", page, 26)[0] == len(pages), "position in the chain")
            pages.append(page)
            self.checked_overflow += 1
        self.checked_pages += 1
        return pages

    def path(self, home, pages):
        yield 0, home
        yield 0, (home + 1) % self.homes
        for bucket in range(self.homes, self.homes + self.stash):
            yield 0, bucket
        for page in range(1, pages):
            for bucket in range(self.homes + self.stash):
                yield page, bucket

    # Section 5, with every rule checked.
    def read_index(self):
        for table in self.tables:
            self.read_table(table)

    def read_table(self, table):
        live = 0
        for number in range((1 << table.level) + table.cursor):
            pages = self.chain(table, number)
            for p, page in enumerate(pages):
                level, split_base = page[24], page[25]
                need(level == table.level + (number % (1 << table.level) < table.cursor), "level of a page")
                here = 0
                for bucket in range(self.homes + self.stash):
                    for word in struct.unpack_from("<8Q", page, 64 + 64 * bucket):
                        if word <= 1:
                            continue
                        need(not word >> 39 & 1, "a marked slot")
                        here += 1
                        record = self.record_at(word & (1 << 39) - 1)
                        need(record.table == table.id, "a record of another table")
                        self.named.add(word & (1 << 39) - 1)
                        hash_ = siphash13(*self.key, record.key)
                        need(hash_ >> 48 == word >> 48, "fingerprint")
                        need(hash_ >> split_base & 0xFF == word >> 40 & 0xFF, "split bits")
                        need(table.page_of(hash_) == number, "a record in another page")
                        for step in self.path((word >> 48) * self.homes >> 16, len(pages)):
                            if step == (p, bucket):
                                break
                            words = struct.unpack_from("<8Q", pages[step[0]], 64 + 64 * step[1])
                            need(0 not in words, "an emptyRest hides a record")
                        else:
                            raise Damaged("a slot off its path")
                        key = (table.id, record.key)
                        need(key not in self.records, "a key twice")
                        self.records[key] = (self.value_of(record), record.deadline, record.lsn)
                need(here == struct.unpack_from("<H", page, 32)[0], "live count of a page")
                live += here
        need(live == table.count, "record count")

    def record_at(self, address):
        slot, offset = address >> 27, (address & (1 << 27) - 1) << 3
        need(slot in self.segments, "an address in no segment")
        segment, salt, end = self.segments[slot]
        record = Record(segment.data, offset, salt, end)
        record.lsn = segment.sequence << 32 | offset
        return record

    # Section 8, the catalog: id -> (name, cleared).
    def catalog(self):
        names = {}
        for (table, key), (value, _, lsn) in self.records.items():
            if table != CATALOG:
                continue
            need(len(value) >= 16 and 1 <= len(key) <= 255, "an entry of the catalog")
            id_, zero, cleared = struct.unpack_from("<IIQ", value)
            need(id_ >= FIRST_TABLE and zero == 0 and cleared <= lsn and id_ not in names, "an entry of the catalog")
            codecs(value[16:])
            names[id_] = (key.decode("utf-8"), cleared)
        return names

    # Section 10, step 7: records of tables without a name, and of cleared ones, do not count.
    def drop_dead(self):
        names = self.catalog()
        dead = [key for key, (_, _, lsn) in self.records.items()
                if key[0] >= FIRST_TABLE and (key[0] not in names or lsn < names[key[0]][1])]
        for key in dead:
            del self.records[key]
        self.names = {id_: name for id_, (name, _) in names.items()}

    # Section 9.
    def value_of(self, record):
        if record.kind == 1:
            return record.value
        need(record.kind == 6 and len(record.value) == 24, "a blob link")
        id_, length, crc, zero = struct.unpack("<QQII", record.value)
        with open(os.path.join(self.log, "%016x.blob" % id_), "rb") as file:
            blob = file.read()
        head = blob[:64]
        need(head[:8] == b"tophBLB1" and u32(head, 8) == 1 and crc_without(head, 12) == u32(head, 12), "blob header")
        need(head[16:32] == self.uuid and struct.unpack_from("<QQI", head, 32) == (id_, length, crc), "blob link")
        need(zero == 0 and len(blob) == 64 + length and zlib.crc32(blob[64:]) == crc, "blob")
        return blob[64:]

    # Section 10, step 5.
    def read_tail(self):
        known = {entry[0] for entry in self.known}
        later, files = {}, []
        for name in os.listdir(self.log):
            if not name.endswith(".log") or not name[:-4].isdigit() or int(name[:-4]) in known:
                continue
            segment = Segment(os.path.join(self.log, name))
            files.append(segment)
            if segment.valid:
                need(segment.uuid == self.uuid, "a segment of another store")
                if segment.sequence == int(name[:-4]) and segment.slot < 4096:
                    later[segment.sequence] = segment

        def successor(sequence):
            found = [s for s in sorted(later) if s > sequence and later[s].predecessor == sequence]
            return later[found[0]] if found else None

        sequence, offset = self.cut >> 32, self.cut & 0xFFFFFFFF
        if sequence:
            entry = next(entry for entry in self.known if entry[0] == sequence)
            current = self.segments[entry[1]][0]
            need(current.valid and current.uuid == self.uuid, "header of the cut's segment")
            named = (current.sequence, current.salt, current.slot)
            need(named == (sequence, entry[2], entry[1]), "header of the cut's segment")
        else:
            current = successor(0)
        end, durable_lsn, torn, read = self.cut, self.cut, False, []
        operations = []
        while current and not torn:
            following = successor(current.sequence)
            limit = min(following.predecessor_end if following else len(current.data), len(current.data))
            at = offset if current.sequence == sequence else 128
            while not (following and at == following.predecessor_end):
                try:
                    at, found = self.unit(current, at, limit)
                except Damaged:
                    torn = True
                    break
                for record in found:
                    record.lsn = current.sequence << 32 | record.at
                operations += found
                durable_lsn = max([durable_lsn] + [r.words()[1] for r in found if r.kind == 5 and r.value[:8] == b"tophMARK"])
            end = current.sequence << 32 | at
            read.append(current)
            if torn:
                durable_lsn = max([durable_lsn] + list(current.marks(at)))
            current = None if torn else following
            if current:
                durable_lsn = max(durable_lsn, current.durable_lsn)
        for segment in files:
            if segment not in read and segment.valid:
                durable_lsn = max([durable_lsn, segment.durable_lsn] + list(segment.marks(128)))
        need(durable_lsn <= end, "acknowledged data is lost")
        for record in operations:
            if record.kind in (1, 6):
                self.tail_records += 1
                self.records[record.table, record.key] = record
            elif record.kind == 2:
                self.tail_records += 1
                self.records.pop((record.table, record.key), None)
            elif record.kind == 3:
                self.tail_records += 1
                self.records = {key: kept for key, kept in self.records.items() if key[0] != MAIN}
        for key, record in self.records.items():
            if isinstance(record, Record):
                self.records[key] = (self.value_of(record), record.deadline, record.lsn)

    # Section 10, step 8.
    def expire(self, now):
        before = len(self.records)
        self.records = {key: kept for key, kept in self.records.items() if kept[1] is None or kept[1] > now}
        return before - len(self.records)

    # The end of section 10: each put below the cut that no slot names has an explanation.
    def check_unnamed(self):
        last, names = {}, self.catalog()
        for sequence, slot, salt, _, end, _, _ in self.known:
            at = 128
            while at < end:
                record = Record(self.segments[slot][0].data, at, salt, end)
                dead = record.table >= FIRST_TABLE and (
                    record.table not in names or sequence << 32 | at < names[record.table][1])
                if record.kind == 3:
                    last = {key: kept for key, kept in last.items() if key[0] != MAIN}
                elif record.kind in (1, 2, 6) and not dead:
                    last[record.table, record.key] = (record, slot << 27 | at >> 3)
                at = record.next
        unnamed = [record for record, address in last.values() if record.kind != 2 and address not in self.named]
        need(all(record.is_over(self.swept) for record in unnamed), "a put that no slot names")
        return len(unnamed)

    def unit(self, segment, at, limit):
        """One record, or one frame with all its records."""
        record = Record(segment.data, at, segment.salt, limit)
        if record.kind != 4:
            need(record.next <= limit, "padding beyond the end")
            return record.next, [record]
        count, size = record.words()
        end, at, found = record.next + size, record.next, []
        need(end <= limit, "a frame beyond the end")
        for _ in range(count):
            member = Record(segment.data, at, segment.salt, end)
            found.append(member)
            at = member.next
        need(at == end, "a frame that does not add up")
        return end, found


def field(name, data):
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {name + "_b64": base64.b64encode(data).decode()}


def main():
    check = sys.argv[1:2] == ["--check"]
    paths = sys.argv[2:] if check else sys.argv[1:]
    if len(paths) != 1:
        sys.exit(__doc__)
    try:
        store = Store(paths[0])
        store.read_index()
        in_index = sum(table != CATALOG for table, _ in store.records)
        swept = store.check_unnamed() if check else 0
        store.read_tail()
        store.drop_dead()
        expired = store.expire(int(time.time() * 1000))
    except Damaged as damage:
        sys.exit("damaged: %s" % damage)
    if check:
        kept = sum(table != CATALOG for table, _ in store.records)
        print("generation %d, %s: %d tables, %d records (%d in the index, %d changes in the tail), %d expired, %d swept, "
              "%d pages, %d overflow pages" % (
                  store.generation, "clean" if store.clean else "not closed cleanly", len(store.names), kept, in_index,
                  store.tail_records, expired, swept, store.checked_pages, store.checked_overflow))
        return
    for (table, key), (value, deadline, _) in sorted(store.records.items(), key=lambda entry: entry[0][0]):
        if table == CATALOG:
            continue
        of = {} if table == MAIN else {"table": store.names[table]}
        expires = {} if deadline is None else {"expires_ms": deadline}
        record = {**of, **field("key", key), **field("value", value), **expires}
        print(json.dumps(record, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    main()
