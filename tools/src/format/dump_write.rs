//! Writes the text format of `db_dump` and `mdb_dump`, version 3, so that `db_load` and `mdb_load` read it.

use std::io::{self, Write};

use super::escape::push_hex;
use super::{RecordWriter, WriteOptions};

/// Writes a dump with a database for each table.
#[derive(Debug)]
pub struct DumpWriter<W> {
    output: W,
    line: Vec<u8>,
    options: WriteOptions,
    /// A database was begun.
    begun: bool,
}

impl<W: Write> DumpWriter<W> {
    /// Writes to `output`, which should be buffered.
    pub fn new(output: W, options: WriteOptions) -> Self {
        DumpWriter { output, line: Vec::new(), options, begun: false }
    }

    fn end_database(&mut self) -> io::Result<()> {
        if self.begun { self.output.write_all(b"DATA=END\n") } else { Ok(()) }
    }

    fn item(&mut self, bytes: &[u8]) {
        self.line.push(b' ');
        for &byte in bytes {
            match byte {
                _ if !self.options.print => push_hex(byte, &mut self.line),
                // The backslash in hex as well: mdb_load before LMDB 0.9.25 misreads a doubled one.
                b' '..=b'~' if byte != b'\\' => self.line.push(byte),
                _ => {
                    self.line.push(b'\\');
                    push_hex(byte, &mut self.line);
                }
            }
        }
        self.line.push(b'\n');
    }
}

impl<W: Write> RecordWriter for DumpWriter<W> {
    /// Writes the header of the table's database.
    ///
    /// Only lines that both loaders take: `db_load` refuses keywords that it does not know. So `mapsize`,
    /// which is LMDB's, is left out unless asked for. The type is `btree`, the only one that LMDB has.
    fn begin_table(&mut self, name: Option<&str>) -> io::Result<()> {
        self.end_database()?;
        self.begun = true;
        let (output, options) = (&mut self.output, &self.options);
        let format = if options.print { "print" } else { "bytevalue" };
        writeln!(output, "VERSION=3\nformat={format}")?;
        if let Some(name) = name.or(options.database.as_deref()) {
            writeln!(output, "database={name}")?;
        }
        writeln!(output, "type=btree")?;
        if let Some(bytes) = options.mapsize_bytes {
            writeln!(output, "mapsize={bytes}")?;
        }
        writeln!(output, "HEADER=END")
    }

    fn write(&mut self, key: &[u8], value: &[u8], _: Option<u64>) -> io::Result<()> {
        self.line.clear();
        self.item(key);
        self.item(value);
        self.output.write_all(&self.line)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end_database()?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use crate::format::{Format, Record, WriteOptions, samples};

    fn text(options: &WriteOptions) -> String {
        let records = [Record { key: b"a\\ \n".to_vec(), ..Record::default() }];
        String::from_utf8(samples::write_all(Format::Dump, &records, options)).unwrap()
    }

    #[test]
    fn the_plain_dump_has_only_the_lines_that_every_loader_knows() {
        let plain = "VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n 615c200a\n \nDATA=END\n";
        assert_eq!(text(&WriteOptions::default()), plain);
    }

    #[test]
    fn each_table_is_a_database() {
        let of = |table: &str| Record { table: Some(table.to_string()), ..Record::default() };
        let text = samples::write_all(Format::Dump, &[of("a b"), of("c")], &WriteOptions::default());
        let database = |name| format!("VERSION=3\nformat=bytevalue\n{name}type=btree\nHEADER=END\n");
        let (main, a, c) = (database(""), database("database=a b\n"), database("database=c\n"));
        let expected = format!("{main}DATA=END\n{a} \n \nDATA=END\n{c} \n \nDATA=END\n");
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn print_name_and_mapsize() {
        let options = WriteOptions { print: true, database: Some("users".into()), mapsize_bytes: Some(1 << 20) };
        let expected = "VERSION=3\nformat=print\ndatabase=users\ntype=btree\nmapsize=1048576\nHEADER=END\n \
                        a\\5c \\0a\n \nDATA=END\n";
        assert_eq!(text(&options), expected);
    }
}
