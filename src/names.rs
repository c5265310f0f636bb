//! Names of the values of an enum, given once: [`names!`](crate::names!).

/// Gives an enum `ALL`, its values in this order, `name` and `from_name`.
///
/// ```
/// #[derive(Debug, Clone, Copy, PartialEq)]
/// enum Colour {
///     Red,
///     LightBlue,
/// }
/// tldr_loader::names!(Colour { Red => "red", LightBlue => "light-blue" });
///
/// assert_eq!(Colour::ALL.map(Colour::name), ["red", "light-blue"]);
/// assert_eq!(Colour::from_name("light-blue"), Some(Colour::LightBlue));
/// ```
///
/// The values of an option are parsed too, by `from_name` and [`FromStr`](std::str::FromStr). Another name is the
/// option's error, which lists the names, or says what is given after the option's own name.
///
/// ```
/// # #[derive(Debug, Clone, Copy, PartialEq)]
/// # enum Colour {
/// #     Red,
/// #     LightBlue,
/// # }
/// tldr_loader::names!(Colour { Red => "red", LightBlue => "light-blue" }, option "colour");
///
/// assert_eq!("red".parse::<Colour>().unwrap(), Colour::Red);
/// let error = Colour::from_name("green").unwrap_err();
/// assert_eq!(error.to_string(), "invalid colour=green: expected red or light-blue");
/// ```
#[macro_export]
macro_rules! names {
    (@all $type:ident { $($value:ident => $name:literal),+ }) => {
        impl $type {
            /// All of them, in order.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$value),+];

            /// The name in options, files and statistics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }
        }
    };
    ($type:ident { $($value:ident => $name:literal),+ $(,)? }) => {
        $crate::names!(@all $type { $($value => $name),+ });

        impl $type {
            /// The one of this [`name`](Self::name).
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.name() == name)
            }
        }
    };
    ($type:ident { $($value:ident => $name:literal),+ $(,)? }, option $option:literal $(, $accepted:literal)?) => {
        $crate::names!(@all $type { $($value => $name),+ });

        impl $type {
            /// The one of this [`name`](Self::name).
            ///
            /// # Errors
            /// Another name.
            pub fn from_name(name: &str) -> $crate::Result<Self> {
                let found = Self::ALL.into_iter().find(|value| value.name() == name);
                found.ok_or_else(|| {
                    let accepted = $crate::names::accepted(&[$($accepted)?], &[$($name),+]);
                    $crate::Error::option($option, name, accepted)
                })
            }
        }

        /// Its [name](Self::name).
        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.name())
            }
        }

        /// By its [name](Self::name).
        impl ::std::str::FromStr for $type {
            type Err = $crate::Error;

            fn from_str(name: &str) -> $crate::Result<Self> {
                Self::from_name(name)
            }
        }
    };
}

/// What the error of an option says: what is `accepted`, where something says that, else the names. For
/// [`names!`](crate::names!).
#[doc(hidden)]
pub fn accepted(accepted: &[&str], names: &[&str]) -> String {
    match (accepted, names) {
        ([accepted, ..], _) => (*accepted).to_owned(),
        ([], [first @ .., last]) if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        ([], names) => names.join(", "),
    }
}
