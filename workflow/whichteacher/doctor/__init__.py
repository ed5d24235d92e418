"""What a machine lacks for a study, found before anything runs: one module per kind of check, all of them put together in
:mod:`whichteacher.doctor.examination`."""
