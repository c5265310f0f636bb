//! [`group!`](crate::group): a struct of options from one list.

/// Declares a struct of options: its fields with their docs, classes, types and defaults, in one place.
///
/// `fields of` names the path to the group from a [`Config`](crate::config::Config), for which
/// [`Builder`](crate::config::Builder) gets a setter for each field: of its type, of `some T` for an `Option<T>`, or of
/// whatever goes `into T`; or none, where the builder has its `own setter`. `as` gives a field another name than Rust allows. A group of another crate has no setters.
///
/// ```
/// use tldr_loader::options::{Class, Group as _};
///
/// tldr_loader::group! {
///     /// How bread is baked.
///     pub struct Oven {
///         /// Degrees. Default: 220.
///         Policy heat: u64 = 220;
///         /// What lies on top. Default: nothing.
///         Policy topping: Option<String> = None;
///         /// Whether the lamp is on. Default: false.
///         Runtime lamp: bool = false;
///     }
/// }
///
/// let given = serde_json::json!({"topping": "sesame", "lamp": true});
/// let oven = Oven::read(given.as_object().unwrap())?;
/// assert_eq!((oven.heat, oven.topping.as_deref()), (220, Some("sesame")));
/// // What is at its default is in no fingerprint, and what is of another class neither.
/// assert_eq!(oven.entries(&[Class::Policy]), [("topping", "sesame".to_owned())]);
///
/// let error = Oven::read(serde_json::json!({"heet": 1}).as_object().unwrap()).unwrap_err();
/// assert_eq!(error.to_string(), "unknown option heet=1: Oven has no option of this name; the nearest is heat");
/// # Ok::<(), tldr_loader::Error>(())
/// ```
#[macro_export]
macro_rules! group {
    (
        $(#[doc = $about:literal])*
        pub struct $group:ident $(, fields of $($at:ident)+)? {
            $(
                $(#[doc = $doc:literal])*
                $class:ident $field:ident $(as $name:literal)?: $type:ty = $default:expr
                    $(, some $some:ty)? $(, into $into:ty)? $(, own $own:ident)?;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $group {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for $group {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::options::Group for $group {
            const NAME: &'static str = stringify!($group);
            const DOC: &'static str = concat!($($about, "\n"),*);
            const FIELDS: &'static [$crate::options::Field] = &[$($crate::options::Field {
                name: $crate::group!(@name $field $($name)?),
                doc: concat!($($doc, "\n"),*),
                class: $crate::options::Class::$class,
                accepted: <$type as $crate::options::Setting>::ACCEPTED,
                python: <$type as $crate::options::Setting>::PYTHON,
                default: || {
                    let default: $type = $default;
                    $crate::options::Setting::to_value(&default)
                },
                group: <$type as $crate::options::Setting>::GROUP,
                each: <$type as $crate::options::Setting>::EACH,
            }),*];

            fn values(&self) -> Vec<::serde_json::Value> {
                vec![$($crate::options::Setting::to_value(&self.$field)),*]
            }

            fn set(&mut self, field: usize, value: &::serde_json::Value) -> $crate::Result<()> {
                let mut at = 0;
                $(if at == field {
                    return $crate::options::read_field(&mut self.$field, Self::FIELDS[at], value);
                }
                at += 1;)*
                let _ = at;
                Ok(())
            }

            fn set_text(&mut self, path: &[&str], text: &str) -> $crate::Result<()> {
                let Some((name, path)) = path.split_first() else { return Ok(()) };
                $(if *name == $crate::group!(@name $field $($name)?) {
                    return $crate::options::set_field(
                        &mut self.$field,
                        $crate::group!(@name $field $($name)?),
                        path,
                        text,
                    );
                })*
                Err($crate::options::unknown::<Self>(name, text))
            }
        }

        impl $crate::options::Setting for $group {
            const ACCEPTED: &'static str = concat!("the options of ", stringify!($group), ", by name");
            const PYTHON: &'static str = stringify!($group);
            const GROUP: Option<&'static [$crate::options::Field]> =
                Some(<Self as $crate::options::Group>::FIELDS);

            fn from_value(value: &::serde_json::Value) -> Option<Self> {
                $crate::options::read_group(value).ok()
            }

            fn to_value(&self) -> ::serde_json::Value {
                $crate::options::write_group(self)
            }

            fn read(value: &::serde_json::Value) -> Result<Self, $crate::options::Refused> {
                $crate::options::read_group(value)
            }

            fn update(&mut self, value: &::serde_json::Value) -> Result<(), $crate::options::Refused> {
                $crate::options::update_group(self, value)
            }

            fn set_text(&mut self, path: &[&str], text: &str) -> Result<(), $crate::options::Refused> {
                Ok($crate::options::Group::set_text(self, path, text)?)
            }
        }

        impl ::serde::Serialize for $group {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                ::serde::Serialize::serialize(&$crate::options::Group::write(self), serializer)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $group {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let given = ::serde::Deserialize::deserialize(deserializer)?;
                <Self as $crate::options::Group>::read(&given).map_err(::serde::de::Error::custom)
            }
        }

        $crate::group!(@setters [$($($at)+)?] $($(#[doc = $doc])* $field, $type $(, some $some)? $(, into $into)? $(, own $own)?;)*);
    };

    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };

    (@setters [] $($rest:tt)*) => {};
    (@setters $at:tt $($(#[doc = $doc:literal])* $field:ident, $type:ty $(, some $some:ty)? $(, into $into:ty)? $(, own $own:ident)?;)*) => {
        impl<P> $crate::config::Builder<P> {
            $($crate::group!(@setter $at [$(#[doc = $doc])*] $field, $type $(, some $some)? $(, into $into)? $(, own $own)?);)*
        }
    };
    (@setter $at:tt [$(#[$doc:meta])*] $field:ident, $type:ty, own setter) => {};
    (@setter $at:tt [$(#[$doc:meta])*] $field:ident, $type:ty) => {
        $(#[$doc])*
        pub fn $field(mut self, $field: $type) -> Self {
            $crate::group!(@assign self, $at, $field, $field);
            self
        }
    };
    (@setter $at:tt [$(#[$doc:meta])*] $field:ident, $type:ty, some $some:ty) => {
        $(#[$doc])*
        pub fn $field(mut self, $field: $some) -> Self {
            $crate::group!(@assign self, $at, $field, Some($field));
            self
        }
    };
    (@setter $at:tt [$(#[$doc:meta])*] $field:ident, $type:ty, into $into:ty) => {
        $(#[$doc])*
        pub fn $field(mut self, $field: impl Into<$into>) -> Self {
            let given: $into = $field.into();
            $crate::group!(@assign self, $at, $field, given.into());
            self
        }
    };
    (@assign $self:ident, [each source], $field:ident, $value:expr) => {
        let value = $value;
        for source in &mut $self.config.sources {
            source.$field = Clone::clone(&value);
        }
    };
    (@assign $self:ident, [config], $field:ident, $value:expr) => { $self.config.$field = $value; };
    (@assign $self:ident, [$at:ident], $field:ident, $value:expr) => { $self.config.$at.$field = $value; };
}
