//! How typed tables are made and found, and how a table gets its types.

use std::marker::PhantomData;

use super::TypedTable;
use crate::codec::{Codec, CodecId, Codecs, codecs_of};
use crate::error::{Error, Result};
use crate::store::{Store, Table};

impl Store {
    /// The table of a name with keys and values of these types, which is made if there is none. `K` and `V` are
    /// [codecs](crate::codec): types such as `str` and `u64`, `Fixed<T>`, `Postcard<T>`, or the program's own.
    ///
    /// Name and version of both codecs are stored with a table when it is made, and compared each time after. Of the costs of
    /// [`table`](Store::table) nothing changes.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let names = store.table_of::<u64, str>("names")?;
    /// names.set(&7, "Ada")?;
    /// assert_eq!(names.get(&7)?.as_deref(), Some("Ada"));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WrongCodec`] if the table has other codecs or none, [`Error::InvalidOption`] for a codec whose name is empty or
    /// too long, those of [`table`](Store::table). After a crash the table is there, with its codecs, or it is not.
    pub fn table_of<K: Codec + ?Sized, V: Codec + ?Sized>(&self, name: &str) -> Result<TypedTable<K, V>> {
        let wanted = codecs_of::<K, V>()?;
        let found = if self.engine.health.is_read_only() {
            self.find(name)?
        } else {
            self.engine.make_table(name, Some(wanted.clone()))?
        };
        self.compare(name, found.codecs.as_ref(), &wanted)?;
        Ok(self.sibling(found.table).typed())
    }

    /// Gives a table new types. Each of its records is read by them first, so this takes as long as an iteration. It is for a table
    /// of bytes, as an import makes it, and for codecs of another name or version that read the same bytes.
    ///
    /// Nothing else must change the table meanwhile. Handles of the old types that are left are not told.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.table("names")?.insert(7u64.to_le_bytes(), "Ada")?;
    /// assert!(store.table_of::<u64, str>("names").is_err());
    /// store.retype_table::<u64, str>("names")?;
    /// assert_eq!(store.table_of::<u64, str>("names")?.get(&7)?.unwrap(), "Ada");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// Bytes that the new types cannot read are carried over by the program, from a handle without a check into a new table:
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// # store.table_of::<str, u32>("counts")?.set("a", &1)?;
    /// let old = store.table_of::<str, u32>("counts")?;
    /// let new = store.table_of::<str, u64>("counts of 64 bits")?;
    /// for entry in old.iter() {
    ///     let (key, count) = entry?;
    ///     new.set(&key, &count.into())?;
    /// }
    /// store.drop_table("counts")?;
    /// # assert_eq!(new.get("a")?, Some(1));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Decode`] for the first record that the new types cannot read, [`Error::NoSuchTable`], those of
    /// [`iter`](Table::iter) and [`insert`](Table::insert). The table has its old types then. After a crash it has the old ones or
    /// the new ones.
    pub fn retype_table<K: Codec + ?Sized, V: Codec + ?Sized>(&self, name: &str) -> Result<TypedTable<K, V>> {
        let codecs = codecs_of::<K, V>()?;
        let typed: TypedTable<K, V> = self.existing_table(name)?.typed();
        typed.check_all()?;
        self.engine.set_codecs(&typed.table.table, codecs)?;
        Ok(typed)
    }

    fn compare(&self, name: &str, stored: Option<&Codecs>, wanted: &Codecs) -> Result<()> {
        let parts = [
            ("key", stored.map(|stored| &stored.keys), &wanted.keys),
            ("value", stored.map(|stored| &stored.values), &wanted.values),
        ];
        for (part, stored, wanted) in parts {
            if stored != Some(wanted) {
                let stored = stored.map_or("bytes without a codec".to_string(), CodecId::to_string);
                let (path, what) = (self.engine.path.clone(), format!("{part}s of table {name:?}"));
                return Err(Error::WrongCodec { path, what, stored, wanted: wanted.to_string() });
            }
        }
        Ok(())
    }
}

impl Table {
    /// The same table, read and written by codecs. Nothing is compared with the codecs that the table may have: it is for the main
    /// table, which has none, and for a look at a table whose types a program does not know.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let counts = store.typed::<str, u64>();
    /// counts.set("hits", &1)?;
    /// assert_eq!(store.get("hits")?.unwrap(), 1u64.to_le_bytes());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn typed<K: Codec + ?Sized, V: Codec + ?Sized>(&self) -> TypedTable<K, V> {
        TypedTable { table: self.clone(), types: PhantomData }
    }

    /// The codecs of the table's keys and values, as the store has them. `None` for a table of bytes, which the main table is.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.table_of::<str, u64>("hits")?;
    /// let codecs = store.existing_table("hits")?.codecs()?.unwrap();
    /// assert_eq!((&*codecs.keys.name, &*codecs.values.name, codecs.values.version), ("str", "u64", 1));
    /// assert_eq!(store.codecs()?, None);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TableDropped`], those of [`get`](Table::get).
    pub fn codecs(&self) -> Result<Option<Codecs>> {
        let Some(name) = self.table.name() else { return Ok(None) };
        let found = self.engine.find_table(&name)?.filter(|found| found.table.id() == self.table.id());
        // Marked before its name goes.
        self.table.check_there()?;
        Ok(found.and_then(|found| found.codecs))
    }
}
