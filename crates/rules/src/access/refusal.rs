//! Why the access rules say no.

/// Why the access rules say no, with a sentence for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An external creates a room.
    #[error("Users of external servers may not create rooms")]
    Creates,
    /// An external would enter a room that is closed to externals.
    #[error("This room is closed to users of external servers")]
    Closed,
    /// An external would enter a room without having been invited.
    #[error("Users of external servers enter this room by invitation only")]
    Uninvited,
    /// A third person in a direct chat.
    #[error("A direct chat is between two people")]
    Third,
    /// An access rule that there is not.
    #[error("Invalid access rule")]
    Invalid,
    /// An access rule that cannot follow from the one before.
    #[error("The access rule of this room cannot be changed in this way")]
    Change,
    /// What is said once, when the room is made.
    #[error("The visibility of a room, and whether it stays unencrypted, is said when it is created")]
    Fixed,
    /// A public room would be opened to externals.
    #[error("A public room cannot be opened to users of external servers")]
    PublicToExternals,
    /// An external would have power.
    #[error("Users of external servers have no power in a room that is open to them")]
    ExternalPower,
    /// Everybody would have power.
    #[error("In a room open to users of external servers nobody has power by default")]
    PowerForAll,
    /// A direct chat is given a name, topic or picture.
    #[error("A direct chat is given no name, topic or picture of its own")]
    Plain,
    /// A direct chat that everybody may join.
    #[error("A direct chat cannot be open to everybody")]
    OpenDirect,
    /// A public room would be closed.
    #[error("A public room stays open to everybody of the network")]
    StaysOpen,
    /// A room that stays unencrypted would be encrypted.
    #[error("This room stays unencrypted")]
    Encryption,
    /// A public room would keep its events for too long.
    #[error("Events of a public room cannot be kept for so long")]
    Retention,
    /// An event that must not be emptied.
    #[error("This event cannot be redacted")]
    Redaction,
    /// A call in a room that everybody may join.
    #[error("There are no calls in public rooms")]
    Call,
    /// The server's rules about domains do not let this user invite that one.
    #[error("You may not invite this user")]
    Invite,
    /// Users are invited when the room is made or not at all.
    #[error("Users can be invited only when the room is created")]
    InviteLate,
    /// Addresses are not invited from this server.
    #[error("Addresses cannot be invited from this server")]
    InviteAddress,
    /// Users of this server join only where they are invited.
    #[error("You may join rooms only if you are invited")]
    Join,
    /// Only restricted rooms are published.
    #[error("Not allowed to publish room")]
    Publish,
}
