//! SQL text to a SQL library's tree, with errors placed in the file. Knows syntax only.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, InTarget,
    ObjectNamePart, Spanned,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::EXPRESSION_DEPTH_MAX;
use crate::catalog::diagnostic::{Problems, Span};
use crate::catalog::literal::Literal;

const ONLY_VALUE: &str = "a metric is a value and its condition: `count() where type = 'error'`";

pub struct Select {
    pub value: Expr,
    pub condition: Option<Expr>,
}

pub fn parse(literal: &Literal<'_>, problems: &mut Problems) -> Option<Select> {
    if literal.text.trim().is_empty() {
        problems.add(&literal.span(), "the expression is empty").expected("an aggregate, as `count()`");
        return None;
    }
    let deep = |select: &Select| depth(&select.value).max(select.condition.as_ref().map_or(0, depth));
    parse_by(literal, problems, "`where`, an operator or the end", select, deep)
}

/// What stands behind `where`, alone.
pub fn parse_condition(literal: &Literal<'_>, problems: &mut Problems) -> Option<Expr> {
    if literal.text.trim().is_empty() {
        problems.add(&literal.span(), "the condition is empty").expected("a comparison, as `type = 'error'`");
        return None;
    }
    parse_by(literal, problems, "an operator or the end", |parser| parser.parse_expr(), depth)
}

/// `behind`: what may follow.
fn parse_by<T>(
    literal: &Literal<'_>,
    problems: &mut Problems,
    behind: &str,
    read: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    depth: impl FnOnce(&T) -> usize,
) -> Option<T> {
    let tokens = match Tokenizer::new(&GenericDialect {}, literal.text).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(error) => {
            let at = literal.index_of(error.location.line, error.location.column);
            let unclosed = error.message.contains("nterminated");
            let expected = if unclosed { "a closing quote" } else { "a SQL select expression" };
            problems.add(&literal.locate(at, at + 1), lower_first(&error.message)).expected(expected);
            return None;
        }
    };
    if let Some(first) = tokens.iter().find(|token| !matches!(token.token, Token::Whitespace(_)))
        && matches!(&first.token, Token::Word(word) if word.keyword == Keyword::SELECT)
    {
        let span = token_span(first.span, literal);
        problems
            .add(&span, "unexpected `select`")
            .expected("only what stands between `select` and `from`")
            .help(ONLY_VALUE);
        return None;
    }
    let tokens = bracketed(tokens);
    let mut parser =
        Parser::new(&GenericDialect {}).with_recursion_limit(EXPRESSION_DEPTH_MAX).with_tokens_with_locations(tokens);
    let read = read(&mut parser);
    let next = parser.peek_token();
    match read {
        Err(error) => syntax_error(&error, literal, problems),
        Ok(_) if next.token != Token::EOF => leftover(&next.token, &token_span(next.span, literal), behind, problems),
        Ok(read) if depth(&read) > EXPRESSION_DEPTH_MAX => too_deep(literal, problems),
        Ok(read) => return Some(read),
    }
    None
}

/// The arguments of `funnel` in brackets of their own: the library takes `type = 'error'` between those of a call for an argument
/// called `type`.
fn bracketed(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_word = |token: &Token| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("funnel"));
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let opens = is_word(&token.token) && tokens.peek().is_some_and(|next| next.token == Token::LParen);
        out.push(token);
        if !opens {
            continue;
        }
        out.extend(tokens.next());
        let (mut depth, mut argument) = (0usize, Vec::new());
        for token in tokens.by_ref() {
            let ends = depth == 0 && matches!(token.token, Token::Comma | Token::RParen);
            if !ends {
                match token.token {
                    Token::LParen => depth += 1,
                    Token::RParen => depth -= 1,
                    _ => {}
                }
                argument.push(token);
                continue;
            }
            put_in_brackets(&mut out, std::mem::take(&mut argument));
            let closes = token.token == Token::RParen;
            out.push(token);
            if closes {
                break;
            }
        }
        // Left open: the parser says so.
        out.extend(argument);
    }
    out
}

fn put_in_brackets(out: &mut Vec<TokenWithSpan>, argument: Vec<TokenWithSpan>) {
    let said = || argument.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let (Some(first), Some(last)) = (said().next(), said().next_back()) else { return out.extend(argument) };
    let (start, end) = (first.span.start, last.span.end);
    let bracket = |token, at| TokenWithSpan { token, span: sqlparser::tokenizer::Span::new(at, at) };
    out.push(bracket(Token::LParen, start));
    out.extend(argument);
    out.push(bracket(Token::RParen, end));
}

fn select(parser: &mut Parser<'_>) -> Result<Select, ParserError> {
    let value = parser.parse_expr()?;
    let condition = if parser.parse_keyword(Keyword::WHERE) { Some(parser.parse_expr()?) } else { None };
    Ok(Select { value, condition })
}

fn too_deep(literal: &Literal<'_>, problems: &mut Problems) {
    problems
        .add(&literal.span(), "the expression is nested too deep")
        .expected(format!("at most {EXPRESSION_DEPTH_MAX} levels"));
}

/// The library's message is its only account of the place: `Expected: a, found: b at Line: 1, Column: 2`.
fn syntax_error(error: &ParserError, literal: &Literal<'_>, problems: &mut Problems) {
    let text = match error {
        ParserError::RecursionLimitExceeded => return too_deep(literal, problems),
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
    };
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => (message, place.split_once(", Column: ")),
        None => (text, None),
    };
    let place = place.and_then(|(line, column)| Some((line.parse().ok()?, column.trim().parse().ok()?)));
    let length = literal.text.chars().count();
    let at = place.map_or(length, |(line, column)| literal.index_of(line, column));
    let found = message.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: "));
    let Some((expected, found)) = found else {
        problems.add(&literal.locate(at, at + 1), lower_first(message)).expected("a SQL select expression");
        return;
    };
    let expected = expectation(expected);
    if found == "EOF" {
        problems.add(&literal.locate(length, length), "the expression ends too early").expected(expected);
        return;
    }
    let span = literal.locate(at, at + found.chars().count());
    let problem = problems.add(&span, format!("unexpected `{found}`")).expected(expected);
    let keyword = matches!(Token::make_word(found, None), Token::Word(word) if word.keyword != Keyword::NoKeyword);
    if matches!(found.to_lowercase().as_str(), "select" | "from" | "where") {
        problem.help(ONLY_VALUE);
    } else if keyword {
        problem.help(format!("a field whose name is a word of SQL stands in double quotes: `\"{found}\"`"));
    }
}

/// The library's expectation in our words.
fn expectation(text: &str) -> String {
    if text.contains(" after IS") {
        return "`null` or `not null`".to_owned();
    }
    let plain = text.bytes().any(|b| b.is_ascii_lowercase());
    if plain { text.to_owned() } else { format!("`{}`", text.to_lowercase()) }
}

fn leftover(token: &Token, span: &Span, behind: &str, problems: &mut Problems) {
    let text = token.to_string();
    let problem = problems.add(span, format!("unexpected `{text}` after the expression")).expected(behind);
    match text.to_lowercase().as_str() {
        "group" => problem.help("the dimensions of a metric are its `by`"),
        "from" => problem.help("there is only one stream of events: leave `from` out"),
        "having" | "order" | "limit" => problem.help("an expression is a value and a `where`, nothing else"),
        "as" => problem.help("the key is the metric's name"),
        ";" => problem.help("leave it out"),
        "filter" => problem.help("use `where` behind the expression"),
        _ => problem,
    };
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

pub fn token_span(span: sqlparser::tokenizer::Span, literal: &Literal<'_>) -> Span {
    if span.start.line == 0 {
        return literal.span();
    }
    let start = literal.index_of(span.start.line, span.start.column);
    literal.locate(start, literal.index_of(span.end.line, span.end.column))
}

/// Where a part of the tree stands in the file; the whole expression where that is not known.
pub fn span_of(expr: &Expr, literal: &Literal<'_>) -> Span {
    match (edge(expr, Edge::Left), edge(expr, Edge::Right)) {
        (Some(left), Some(right)) => token_span(left.union(&right), literal),
        _ => literal.span(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Edge {
    Left,
    Right,
}

/// The outermost word on one side. The library's own way to a span is recursive, and a chain of operators may be thousands
/// long; of a call or a `case` the first word stands for the whole.
fn edge(expr: &Expr, edge: Edge) -> Option<sqlparser::tokenizer::Span> {
    let mut expr = expr;
    loop {
        expr = match (expr, edge) {
            (Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::Wildcard(_), _) => {
                return Some(expr.span());
            }
            (Expr::Function(function), _) => return Some(function.name.span()),
            (Expr::Case { case_token, .. }, _) => return Some(case_token.0.span),
            (Expr::Interval(interval), _) => &interval.value,
            (Expr::BinaryOp { left, .. }, Edge::Left) => left,
            (Expr::BinaryOp { right, .. }, Edge::Right) => right,
            (Expr::In { target: InTarget::List(items), .. }, Edge::Right) if !items.is_empty() => {
                &items[items.len() - 1]
            }
            (Expr::Between { high, .. }, Edge::Right) => high,
            (
                Expr::Like { pattern, .. } | Expr::ILike { pattern, .. } | Expr::SimilarTo { pattern, .. },
                Edge::Right,
            ) => pattern,
            (Expr::Array(array), Edge::Left) => array.elem.first()?,
            (Expr::Array(array), Edge::Right) => array.elem.last()?,
            (Expr::Tuple(items), Edge::Left) => items.first()?,
            (Expr::Tuple(items), Edge::Right) => items.last()?,
            (Expr::CompoundFieldAccess { root, .. }, _) => root,
            (
                Expr::Nested(inner)
                | Expr::UnaryOp { expr: inner, .. }
                | Expr::IsNull(inner)
                | Expr::IsNotNull(inner)
                | Expr::IsTrue(inner)
                | Expr::IsNotTrue(inner)
                | Expr::IsFalse(inner)
                | Expr::IsNotFalse(inner)
                | Expr::In { expr: inner, .. }
                | Expr::Between { expr: inner, .. }
                | Expr::Like { expr: inner, .. }
                | Expr::ILike { expr: inner, .. }
                | Expr::SimilarTo { expr: inner, .. }
                | Expr::Cast { expr: inner, .. }
                | Expr::Extract { expr: inner, .. }
                | Expr::Ceil { expr: inner, .. }
                | Expr::Floor { expr: inner, .. }
                | Expr::Position { expr: inner, .. }
                | Expr::Substring { expr: inner, .. }
                | Expr::Trim { expr: inner, .. }
                | Expr::Collate { expr: inner, .. },
                _,
            ) => inner,
            _ => return None,
        };
    }
}

/// Nesting of the tree, a chain of `and` or of `or` counted as one level.
fn depth(expr: &Expr) -> usize {
    let mut deepest = 0;
    let mut open = vec![(expr, 1)];
    while let Some((expr, level)) = open.pop() {
        deepest = deepest.max(level);
        if level > EXPRESSION_DEPTH_MAX {
            return level;
        }
        match expr {
            Expr::BinaryOp { left, op, right } => {
                let chain = matches!(op, BinaryOperator::And | BinaryOperator::Or)
                    && matches!(&**left, Expr::BinaryOp { op: inner, .. } if inner == op);
                open.push((left, if chain { level } else { level + 1 }));
                open.push((right, level + 1));
            }
            Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } | Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                open.push((inner, level + 1));
            }
            Expr::Between { expr, low, high, .. } => open.extend([expr, low, high].map(|inner| (&**inner, level + 1))),
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
                open.extend([expr, pattern].map(|inner| (&**inner, level + 1)));
            }
            Expr::In { expr, target: InTarget::List(items), .. } => {
                open.push((expr, level + 1));
                open.extend(items.iter().map(|item| (item, level + 1)));
            }
            Expr::Function(Function { args: FunctionArguments::List(list), .. }) => {
                open.extend(list.args.iter().filter_map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(inner)) => Some((inner, level + 1)),
                    _ => None,
                }));
            }
            // The rest is refused at sight.
            _ => {}
        }
    }
    deepest
}

/// The segments of a name: `a`, `a.b`, `"a b".c`. Some words of SQL are functions to the library and names to us.
pub fn name_of(expr: &Expr) -> Option<Vec<String>> {
    match expr {
        Expr::Identifier(ident) => Some(vec![ident.value.clone()]),
        Expr::CompoundIdentifier(idents) => Some(idents.iter().map(|ident| ident.value.clone()).collect()),
        Expr::Function(Function { name, args: FunctionArguments::None, .. }) => match &name.0[..] {
            [ObjectNamePart::Identifier(ident)] if !is_clock(&ident.value) => Some(vec![ident.value.clone()]),
            _ => None,
        },
        Expr::CompoundFieldAccess { root, access_chain } => {
            let mut path = name_of(root)?;
            for access in access_chain {
                match access {
                    AccessExpr::Dot(inner) => path.extend(name_of(inner)?),
                    AccessExpr::Subscript(_) => return None,
                }
            }
            Some(path)
        }
        _ => None,
    }
}

fn is_clock(word: &str) -> bool {
    let word = word.to_lowercase();
    word.starts_with("current_") || word.starts_with("local")
}

/// Is the name one in double quotes, which in SQL are for names and elsewhere for text?
pub fn is_double_quoted(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style == Some('"'))
}

/// What a person calls a construct that is not supported, and what to do instead.
pub fn construct(expr: &Expr) -> (String, Option<&'static str>) {
    let fixed = |name: &str| (format!("`{name}` is not supported in expressions"), None);
    let hint = |name: &str, help| (format!("`{name}` is not supported in expressions"), Some(help));
    match expr {
        Expr::Case { .. } => hint("CASE", "a metric for each case, each with its own `where`"),
        Expr::Cast { .. } | Expr::Convert { .. } => hint("CAST", "a number in a string is a string"),
        Expr::Extract { .. } => fixed("EXTRACT"),
        Expr::Ceil { .. } => fixed("CEIL"),
        Expr::Floor { .. } => fixed("FLOOR"),
        Expr::Position { .. } => fixed("POSITION"),
        Expr::Substring { .. } => fixed("SUBSTRING"),
        Expr::Trim { .. } => fixed("TRIM"),
        Expr::Overlay { .. } => fixed("OVERLAY"),
        Expr::Collate { .. } => fixed("COLLATE"),
        Expr::AtTimeZone { .. } => fixed("AT TIME ZONE"),
        Expr::Interval(_) => fixed("INTERVAL"),
        Expr::Exists { .. } | Expr::Subquery(_) => ("a subquery is not supported in expressions".into(), None),
        Expr::IsTrue(_) | Expr::IsNotTrue(_) => hint("IS TRUE", "use `= true`"),
        Expr::IsFalse(_) | Expr::IsNotFalse(_) => hint("IS FALSE", "use `= false`"),
        Expr::IsUnknown(_) | Expr::IsNotUnknown(_) => fixed("IS UNKNOWN"),
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => fixed("IS DISTINCT FROM"),
        Expr::SimilarTo { .. } => hint("SIMILAR TO", "use `like`"),
        Expr::RLike { .. } => hint("RLIKE", "use `like`"),
        Expr::AnyOp { .. } => hint("ANY", "use `in (…)`"),
        Expr::AllOp { .. } => fixed("ALL"),
        Expr::Tuple(_) => ("a tuple is not supported in expressions".into(), None),
        Expr::Array(_) => ("an array is not supported in expressions".into(), None),
        Expr::TypedString(_) => ("a typed literal is not supported in expressions".into(), None),
        Expr::CompoundFieldAccess { .. } | Expr::JsonAccess { .. } => {
            ("`[…]` is not supported in expressions".into(), Some("paths are dotted: `props.amount`"))
        }
        Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => ("`*` stands only in `count(*)`".into(), None),
        Expr::Function(function) => {
            let name = function.name.to_string();
            (format!("`{name}` is not supported in expressions"), None)
        }
        Expr::Lambda(_) => ("a lambda is not supported in expressions".into(), None),
        _ => ("this is not supported in expressions".into(), None),
    }
}

/// An operator that the grammar has and the engine has not.
pub fn operator_help(op: &BinaryOperator) -> Option<&'static str> {
    match op {
        BinaryOperator::PGOverlap => Some("use `and`"),
        BinaryOperator::StringConcat => Some("use `or` for conditions; texts cannot be joined"),
        BinaryOperator::Arrow | BinaryOperator::LongArrow => Some("paths are dotted: `props.amount`"),
        BinaryOperator::PGRegexMatch | BinaryOperator::PGRegexIMatch | BinaryOperator::Regexp => Some("use `like`"),
        _ => None,
    }
}
