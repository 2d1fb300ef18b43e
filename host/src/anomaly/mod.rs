//! Anomaly rules: built-in ones, and the judge that calls a rule or a plugin. Does not know where points come from.
