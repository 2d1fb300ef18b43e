//! What names in an expression mean, and the fields found so far.

use std::collections::HashMap;

use crate::engine::plan::{Field, FieldDefault, FieldId};

/// The fields that something reads, shared by path.
#[derive(Debug, Default)]
pub struct Fields {
    pub list: Vec<Field>,
    ids: HashMap<Vec<String>, FieldId>,
}

impl Fields {
    pub fn id(&mut self, path: &[String]) -> FieldId {
        if let Some(id) = self.ids.get(path) {
            return *id;
        }
        let default = match path {
            [only] if only == "ip" => FieldDefault::ClientAddress,
            [only] if only == "user_agent" => FieldDefault::UserAgent,
            _ => FieldDefault::None,
        };
        let id = self.list.len();
        self.list.push(Field {
            path: path.to_vec(),
            codes: false,
            number: false,
            hash: false,
            enrichment_input: false,
            scalar: false,
            default,
        });
        self.ids.insert(path.to_vec(), id);
        id
    }

    pub fn find(&self, path: &[String]) -> Option<FieldId> {
        self.ids.get(path).copied()
    }
}

pub struct Scope<'a> {
    /// Metrics of the file by name: their index.
    pub metrics: &'a HashMap<String, usize>,
    /// Dimensions that read a field of another name, unless an enrichment gives a field of theirs.
    pub aliases: &'a HashMap<String, Vec<String>>,
    pub fields: &'a mut Fields,
    /// The event's `key`, if it has one.
    pub key: Option<&'a [String]>,
}

impl Scope<'_> {
    /// A field, or an enrichment's output, or a dimension of that name.
    pub fn field(&mut self, path: &[String]) -> FieldId {
        match path {
            [name] => match self.aliases.get(name) {
                Some(path) => self.fields.id(path),
                None => self.fields.id(std::slice::from_ref(name)),
            },
            path => self.fields.id(path),
        }
    }
}
