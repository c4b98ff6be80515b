//! Who may join this network: e-mail domains, third-party identifier validation and mail.
