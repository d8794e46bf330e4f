//! Objects by namespace and name.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Objects by namespace and name, found without building a key.
#[derive(Debug)]
pub(super) struct Table<T, K = String>(HashMap<String, HashMap<K, T>>);

impl<T, K> Default for Table<T, K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Table<T> {
    pub(super) fn insert(&mut self, namespace: &str, name: &str, value: T) -> Option<T> {
        self.insert_as(namespace, name.to_owned(), value)
    }
}

impl<T, K: Borrow<str> + Hash + Eq> Table<T, K> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        self.0.get(namespace)?.get(name)
    }

    pub(super) fn get_mut(&mut self, namespace: &str, name: &str) -> Option<&mut T> {
        self.0.get_mut(namespace)?.get_mut(name)
    }

    /// The same with a key that the caller shares with another place.
    pub(super) fn insert_as(&mut self, namespace: &str, name: K, value: T) -> Option<T> {
        if !self.0.contains_key(namespace) {
            self.0.insert(namespace.to_owned(), HashMap::new());
        }
        self.0.get_mut(namespace)?.insert(name, value)
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Option<T> {
        let names = self.0.get_mut(namespace)?;
        let value = names.remove(name);
        if names.is_empty() {
            self.0.remove(namespace);
        }
        value
    }

    /// All objects, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values().flat_map(HashMap::values)
    }

    /// The objects of one namespace with their names, in no order.
    pub(super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = (&K, &T)> {
        self.0.get(namespace).into_iter().flatten()
    }

    /// The namespaces with their objects, in no order.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&str, &HashMap<K, T>)> {
        self.0.iter().map(|(namespace, objects)| (namespace.as_str(), objects))
    }

    /// Takes all objects of one namespace out.
    pub(super) fn take_namespace(&mut self, namespace: &str) -> HashMap<K, T> {
        self.0.remove(namespace).unwrap_or_default()
    }

    pub(super) fn names(&self) -> Vec<(String, String)> {
        let pairs = |(namespace, names): (&String, &HashMap<K, T>)| {
            names
                .keys()
                .map(|name| (namespace.clone(), name.borrow().to_owned()))
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(pairs).collect()
    }
}
