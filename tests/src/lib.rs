//! Shared by the folders of tests: private servers, and finding what is built.
