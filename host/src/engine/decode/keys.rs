//! The keys that events have, the fields wanted at them, and which key follows which.
//!
//! Events repeat their keys in a few orders. A key that was seen has an id that knows its bytes and the keys that have
//! followed it, so that the next key is almost always one compare. What is learned is bounded; when it is full it is
//! forgotten and learned again. Knows nothing of lines and values.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Learned keys, and bytes of their names.
const KEYS_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 256;
const FOLLOWERS: usize = 6;
/// Bytes before the colon that one compare covers.
pub(super) const WINDOW_BYTES: usize = 16;

/// No column is wanted.
pub(super) const NO_COLUMN: u16 = u16::MAX;
/// Below what no path reads.
const DEAD: u16 = u16::MAX;
/// The event itself.
pub(super) const ROOT: u16 = 0;

/// Fits no key; fills lists of followers.
const NEVER: u16 = 0;
/// "Before" the first key of every event.
pub(super) const START: u16 = 1;
/// Stands for keys that are not learned.
const OTHER: u16 = 2;
const FIXED: usize = 3;

/// What a key means at its place.
#[derive(Clone, Copy)]
pub(super) struct Meaning {
    /// Where paths through this key go on.
    pub node: u16,
    pub column: u16,
    /// A bit if paths lead through this key (bits may be shared), else 0.
    pub inner: u64,
}

/// A cache line each.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Key {
    /// The last bytes of the quoted name as spelled, at the end of the window, and which of them count.
    tail: u128,
    mask: u128,
    followers: [u16; FOLLOWERS],
    /// Bytes from the opening quote to the colon.
    pub quoted_bytes: u16,
    parent: u16,
    name_start: u32,
    pub meaning: Meaning,
}

struct Node {
    children: Vec<(Vec<u8>, u16)>,
    meaning: Meaning,
    /// Columns of all that lies below.
    below: Vec<u16>,
}

pub(super) struct Keys {
    nodes: Vec<Node>,
    column_of_path: Vec<u16>,
    keys: Vec<Key>,
    names: Vec<u8>,
    ids: HashTable<u16>,
}

impl Keys {
    pub fn new(paths: &[Vec<String>]) -> Self {
        let root = Meaning { node: ROOT, column: NO_COLUMN, inner: 0 };
        let mut keys = Self {
            nodes: vec![Node { children: Vec::new(), meaning: root, below: Vec::new() }],
            column_of_path: Vec::new(),
            keys: Vec::new(),
            names: Vec::new(),
            ids: HashTable::new(),
        };
        let mut columns = 0;
        for path in paths {
            let node = keys.add(path);
            let column = &mut keys.nodes[node].meaning.column;
            if *column == NO_COLUMN {
                *column = columns;
                columns += 1;
            }
            let column = *column;
            keys.column_of_path.push(column);
            keys.add_below(path, column);
        }
        keys.forget();
        keys
    }

    pub fn columns_of_paths(&self) -> &[u16] {
        &self.column_of_path
    }

    #[cfg(test)]
    pub fn learned(&self) -> usize {
        self.keys.len()
    }

    pub fn root_column(&self) -> u16 {
        self.nodes[0].meaning.column
    }

    /// Columns of all paths that lead through a key of this meaning.
    pub fn below(&self, node: u16) -> &[u16] {
        self.nodes.get(usize::from(node)).map_or(&[], |node| &node.below)
    }

    fn add(&mut self, path: &[String]) -> usize {
        let mut at = 0;
        for segment in path {
            at = match self.nodes[at].children.iter().find(|(name, _)| name == segment.as_bytes()) {
                Some((_, child)) => usize::from(*child),
                None => {
                    let child = self.nodes.len();
                    assert!(child < usize::from(DEAD), "more segments of paths than a decoder reads");
                    let meaning = Meaning { node: child as u16, column: NO_COLUMN, inner: 0 };
                    self.nodes.push(Node { children: Vec::new(), meaning, below: Vec::new() });
                    self.nodes[at].children.push((segment.clone().into_bytes(), child as u16));
                    self.nodes[at].meaning.inner = 1 << at.min(63);
                    child
                }
            };
        }
        at
    }

    fn add_below(&mut self, path: &[String], column: u16) {
        let mut at = 0;
        for segment in path {
            if !self.nodes[at].below.contains(&column) {
                self.nodes[at].below.push(column);
            }
            let children = &self.nodes[at].children;
            let child = children.iter().find(|(name, _)| name == segment.as_bytes()).expect("the path was added");
            at = usize::from(child.1);
        }
    }

    fn forget(&mut self) {
        let other = Meaning { node: DEAD, column: NO_COLUMN, inner: 0 };
        let fixed = Key {
            tail: 1,
            mask: 0,
            followers: [NEVER; FOLLOWERS],
            quoted_bytes: 2,
            parent: DEAD,
            name_start: 0,
            meaning: other,
        };
        self.keys.clear();
        self.keys.resize(FIXED, fixed);
        self.names.clear();
        self.ids.clear();
    }

    /// The key before the colon at `colon`, if it is one that has followed `last` before.
    #[inline(always)]
    pub fn follow(&mut self, buffer: &[u8], colon: usize, last: u16, parent: u16) -> Option<u16> {
        let window = u128::from_le_bytes(*buffer[..colon].last_chunk::<WINDOW_BYTES>()?);
        let followers = &self.keys[usize::from(last)].followers;
        for (rank, &id) in followers.iter().enumerate() {
            let key = &self.keys[usize::from(id)];
            if window & key.mask == key.tail && key.parent == parent {
                if usize::from(key.quoted_bytes) > WINDOW_BYTES && !self.is_long(key, buffer, colon) {
                    continue;
                }
                if rank > 1 {
                    // A frequent one rises to where it is found at once.
                    self.keys[usize::from(last)].followers.swap(rank, rank - 1);
                }
                return Some(id);
            }
        }
        None
    }

    /// Compares the whole of a key that is longer than the window.
    fn is_long(&self, key: &Key, buffer: &[u8], colon: usize) -> bool {
        let quoted_bytes = usize::from(key.quoted_bytes);
        colon >= quoted_bytes && buffer[colon - quoted_bytes] == b'"' && {
            let name = &buffer[colon - quoted_bytes + 1..colon - 1];
            name == &self.names[key.name_start as usize..][..name.len()]
        }
    }

    #[inline(always)]
    pub fn get(&self, id: u16) -> &Key {
        &self.keys[usize::from(id)]
    }

    /// Looks a key up that did not follow, and learns it and that it does. `spelled` stands between its quotes, and
    /// `name` is what that spells.
    #[cold]
    #[inline(never)]
    pub fn look_up(&mut self, spelled: &[u8], name: &[u8], last: u16, parent: u16) -> (u16, Meaning) {
        let meaning = self.meaning(name, parent);
        if spelled.len() > NAME_BYTES_MAX {
            return (OTHER, meaning);
        }
        let hash = xxh3_64_with_seed(spelled, u64::from(parent));
        let (keys, names) = (&self.keys, &self.names);
        let known = self.ids.find(hash, |&id| {
            let key = &keys[usize::from(id)];
            key.parent == parent
                && usize::from(key.quoted_bytes) == spelled.len() + 2
                && &names[key.name_start as usize..][..spelled.len()] == spelled
        });
        let id = match known {
            Some(&id) => id,
            None => self.learn(spelled, hash, parent, meaning),
        };
        if let Some(last) = self.keys.get_mut(usize::from(last)) {
            // The first three stay, the others make room in turn.
            let free = last.followers.iter().position(|&follower| follower == NEVER);
            last.followers[free.unwrap_or(3 + usize::from(id) % (FOLLOWERS - 3))] = id;
        }
        (id, meaning)
    }

    fn meaning(&self, name: &[u8], parent: u16) -> Meaning {
        let children = self.nodes.get(usize::from(parent)).map_or(&[][..], |node| &node.children);
        match children.iter().find(|(child, _)| child == name) {
            Some((_, child)) => self.nodes[usize::from(*child)].meaning,
            None => Meaning { node: DEAD, column: NO_COLUMN, inner: 0 },
        }
    }

    fn learn(&mut self, spelled: &[u8], hash: u64, parent: u16, meaning: Meaning) -> u16 {
        if self.keys.len() == KEYS_MAX {
            self.forget();
        }
        let id = self.keys.len() as u16;
        let quoted_bytes = spelled.len() + 2;
        let mut window = [0; WINDOW_BYTES];
        let mut mask = [0; WINDOW_BYTES];
        let quoted = [b"\"", spelled, b"\""].concat();
        let covered = quoted_bytes.min(WINDOW_BYTES);
        window[WINDOW_BYTES - covered..].copy_from_slice(&quoted[quoted_bytes - covered..]);
        mask[WINDOW_BYTES - covered..].fill(0xff);
        let name_start = self.names.len() as u32;
        self.names.extend_from_slice(spelled);
        self.keys.push(Key {
            tail: u128::from_le_bytes(window),
            mask: u128::from_le_bytes(mask),
            followers: [NEVER; FOLLOWERS],
            quoted_bytes: quoted_bytes as u16,
            parent,
            name_start,
            meaning,
        });
        let (keys, names) = (&self.keys, &self.names);
        self.ids.insert_unique(hash, id, |&id| {
            let key = &keys[usize::from(id)];
            let name = &names[key.name_start as usize..][..usize::from(key.quoted_bytes) - 2];
            xxh3_64_with_seed(name, u64::from(key.parent))
        });
        id
    }
}
