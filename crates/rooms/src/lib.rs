//! From a draft or a received PDU to a committed event; reads of one room.
