"""Operations on the daemon itself: one verb, one file, registered in one table."""
