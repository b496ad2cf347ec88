DROP TABLE usage_dead_letters;
