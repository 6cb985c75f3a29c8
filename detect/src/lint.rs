//! Advice about rules: the forms that the specification asks for, and what experience advises.
//!
//! Every piece of advice has a short code, and a document silences codes with the key `lint-ignore`.

use crate::error::{Mistake, Weight};
use crate::yaml::{Node, Place, Yaml};

fn ignored(node: &Node) -> Vec<String> {
    match node.get("lint-ignore") {
        Some(Node {
            yaml: Yaml::List(items),
            ..
        }) => items.iter().filter_map(Node::scalar).collect(),
        Some(other) => other.scalar().into_iter().collect(),
        None => Vec::new(),
    }
}

/// The codes that one document silences, with the number of its file and where it begins.
pub(crate) struct Silenced {
    file: usize,
    begin: Place,
    codes: Vec<String>,
}

/// What a document silences. One that silences nothing counts too: the one before it ends there.
pub(crate) fn silenced(file: usize, node: &Node) -> Silenced {
    Silenced {
        file,
        begin: node.place,
        codes: ignored(node),
    }
}

/// Does the document that a piece of advice is about not want to hear it?
pub(crate) fn is_silenced(silenced: &[Silenced], file: usize, mistake: &Mistake) -> bool {
    let (Some(code), Some(place), Weight::Warning) = (mistake.code, mistake.place, mistake.weight)
    else {
        return false;
    };
    let mut documents = silenced
        .iter()
        .filter(|s| s.file == file && s.begin <= place);
    documents
        .next_back()
        .is_some_and(|s| s.codes.iter().any(|c| c == code))
}
