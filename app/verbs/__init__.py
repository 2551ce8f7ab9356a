"""One function per verb of `studio`: parsed options in, an Answer out; imported only when the verb is used."""
