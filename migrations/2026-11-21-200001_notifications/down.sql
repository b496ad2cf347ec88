DROP TABLE notification_checks;
DROP TABLE notifications;
