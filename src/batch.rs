//! A list of changes that is applied as one.

/// One change of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BatchOp {
    Put { key: Box<[u8]>, value: Box<[u8]> },
    Remove { key: Box<[u8]> },
}

impl BatchOp {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            BatchOp::Put { key, .. } | BatchOp::Remove { key } => key,
        }
    }
}

/// Changes that [`Store::apply`](crate::Store::apply) carries out as one: after any crash all of them are
/// there or none is.
///
/// Where a key occurs more than once, the last change counts. For readers a batch is atomic per key, not
/// across keys.
///
/// ```
/// let mut batch = tophash::Batch::new();
/// batch.insert("user:1", "Ada");
/// batch.remove("user:2");
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) ops: Vec<BatchOp>,
}

impl Batch {
    /// An empty batch. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Batch::default()
    }

    /// Adds "set `key` to `value`". Copies both. Limits are checked when the batch is applied.
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.ops.push(BatchOp::Put { key: key.as_ref().into(), value: value.as_ref().into() });
        self
    }

    /// Adds "remove `key`". Removing a key that is not there is no error.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.ops.push(BatchOp::Remove { key: key.as_ref().into() });
        self
    }

    /// How many changes were added, repeated keys counted each time.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// True if no change was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Forgets all changes and keeps the allocation.
    pub fn clear(&mut self) {
        self.ops.clear();
    }
}
